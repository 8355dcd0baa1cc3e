"""Vision-language checkpoints trained on text: found, adapted in the language model alone, loaded again elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sartor.base.errors import ModelError
from sartor.base.settings import MethodSettings, ModelSettings
from sartor.model import head, text_part
from sartor.model.batch import collate
from sartor.model.load import adapt, load_model, save_weights
from sartor.model.lora_targets import describe_lora, lora_targets
from sartor.model.loss_check import check_loss
from support.families import make_family, random_rows

FAMILIES = [
    *("gemma3", "gemma4", "glm4v", "idefics3", "internvl", "llama4", "llava", "mistral3", "mllama"),
    *("qwen2_5_vl", "qwen3_5", "qwen3_vl", "qwen3_vl_moe"),
]
TEXT_CLASS = {"qwen3_5"}
"""Families that transformers loads without the vision tower."""


def saved(family: str, folder: Path) -> str:
    make_family(family, vision=True).save_pretrained(folder)
    return str(folder)


def load(path: str) -> Any:
    return load_model(ModelSettings(model_name_or_path=path, dtype="float32"), device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_language_model_is_adapted_and_trained(family: str, tmp_path: Path) -> None:
    model = load(saved(family, tmp_path / "base"))
    outside = text_part.outside(model)
    assert bool(outside) == (family not in TEXT_CLASS)
    tuned = adapt(model, MethodSettings(lora_rank=4))
    adapted = {name for name, p in tuned.named_parameters() if p.requires_grad}
    inside = {id(p) for p in text_part.text_decoder(head.causal_model(tuned)).parameters()}
    assert adapted
    assert all(id(p) in inside for p in tuned.parameters() if p.requires_grad)
    for name, p in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.05)
    rows = random_rows(40, 30, 20)
    found = check_loss(tuned, rows, head.summed_loss, 0, pack=False)
    assert not found.off, found.reasons
    head.summed_loss(tuned.train(), collate(rows, range(3), 0)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tuned.parameters() if p.requires_grad)
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        wanted = tuned.eval()(input_ids=ids).logits
    save_weights(tuned, tmp_path / "adapter")
    from peft import PeftModel

    again = PeftModel.from_pretrained(load(str(tmp_path / "base")), str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, wanted, rtol=1e-4, atol=1e-4)


def test_a_model_that_reads_its_prompt_in_both_directions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="attend to later ones"):
        check_loss(load(saved("paligemma", tmp_path)), random_rows(40, 30), head.summed_loss, 0, pack=False)


@pytest.mark.parametrize("kind", ["full", "freeze"])
def test_what_text_never_passes_through_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    model = adapt(load(saved("gemma3", tmp_path)), MethodSettings(finetuning_type=kind, freeze_trainable_layers=1))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert not any("vision_tower" in name or "projector" in name for name in trained)


def test_routers_are_left_out_and_experts_are_named(tmp_path: Path) -> None:
    fused = make_family("qwen3_moe")
    assert "gate" not in lora_targets(fused, ("all",))
    assert "no expert is trained" in str(describe_lora(adapt(fused, MethodSettings(lora_rank=4))))
    shared = adapt(make_family("qwen2_moe"), MethodSettings(lora_rank=4))
    assert "shared_expert_gate" not in str(describe_lora(shared))
    plain = adapt(make_family("llama"), MethodSettings(lora_rank=4, lora_target=["q_proj"]))
    assert str(describe_lora(plain)) == "LoRA on q_proj × 4"


def test_towers_are_named_in_the_plan(tmp_path: Path) -> None:
    tuned = adapt(load(saved("gemma3", tmp_path)), MethodSettings(lora_rank=4, lora_target=["q_proj", "v_proj"]))
    assert str(describe_lora(tuned)) == (
        "LoRA on q_proj × 4, v_proj × 4; vision and audio towers and projectors stay as they are"
    )
