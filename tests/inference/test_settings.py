"""An engine is loaded by all of its settings: revision, quantization, attention, and every adapter in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sartor.base.config import RunConfig
from sartor.base.errors import ModelError
from sartor.base.settings import GenerationSettings
from sartor.base.types import Message
from sartor.inference.engine import Engine
from sartor.model.load import load_adapter
from support.tiny import make_model
from support.tiny_adapter import save_adapter

PROMPT = (Message("user", "Who?"),)
SHORT = GenerationSettings(max_new_tokens=8)


def adapter(folder: Path, base: Path, seed: int) -> Path:
    from transformers import AutoModelForCausalLM

    return save_adapter(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder, base=base, seed=seed)


def config_of(model: Path | str, **settings: Any) -> RunConfig:
    return RunConfig.from_dict({"model_name_or_path": str(model), "dtype": "float32", "use_cpu": True, **settings})


@torch.no_grad()
def logits_of(engine: Engine) -> torch.Tensor:
    ids = torch.tensor([engine.prompt(PROMPT).ids.tolist()])
    logits: torch.Tensor = engine.model(ids).logits
    return logits


def test_model_and_tokenizer_are_loaded_at_the_revision(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    seen: dict[str, str] = {}
    for name in ("AutoTokenizer", "AutoModelForCausalLM"):
        kind = getattr(transformers, name)
        real = kind.from_pretrained

        def recorded(path: str, *, name: str = name, real: Any = real, **options: Any) -> Any:
            seen[name] = options["revision"]
            return real(path, **options)

        monkeypatch.setattr(kind, "from_pretrained", recorded)
    Engine.from_config(config_of(tiny_model_dir, model_revision="v2"))
    assert seen == {"AutoTokenizer": "v2", "AutoModelForCausalLM": "v2"}


def test_the_attention_kernel_is_the_one_asked_for(tiny_model_dir: Path) -> None:
    engine = Engine.from_config(config_of(tiny_model_dir, attn_implementation="eager"))
    assert engine.model.config._attn_implementation == "eager"
    assert Engine.load(str(tiny_model_dir), attn_implementation="sdpa").model.config._attn_implementation == "sdpa"


def test_the_prompt_settings_reach_the_encoder(tiny_model_dir: Path) -> None:
    config = config_of(tiny_model_dir, cutoff_len=77, mask_history=True, default_system="Be brief.")
    engine = Engine.from_config(config)
    assert engine.encoder.settings == config.prompt
    assert "Be brief." in engine.template.render(PROMPT)


def test_every_adapter_is_applied_in_order(tmp_path: Path, tiny_model_dir: Path) -> None:
    first, second = (adapter(tmp_path / str(seed), tiny_model_dir, seed) for seed in (1, 2))
    both = Engine.from_config(config_of(tiny_model_dir, adapter_name_or_path=[str(first), str(second)]))
    bare, one = (
        Engine.load(str(tiny_model_dir), dtype="float32"),
        Engine.load(str(tiny_model_dir), first, dtype="float32", device="cpu"),
    )
    plain = load_adapter(bare.model, first, trainable=True).merge_and_unload()
    plain = load_adapter(plain, second, trainable=True).merge_and_unload().eval()
    with torch.no_grad():
        expected = plain(torch.tensor([both.prompt(PROMPT).ids.tolist()])).logits
    assert torch.allclose(logits_of(both), expected, atol=1e-4)
    assert not torch.allclose(logits_of(both), logits_of(one), atol=1e-2)
    fresh = Engine.load(str(tiny_model_dir), dtype="float32", device="cpu")
    both.weights.use("base")  # the model under all adapters
    assert torch.equal(logits_of(both), logits_of(fresh))
    assert both.fingerprint("base") == fresh.fingerprint()


@pytest.fixture
def wide_model_dir(tmp_path: Path, tiny_tokenizer: Any) -> Path:
    """Wide enough for 4-bit blocks of 64 weights."""
    folder = tmp_path / "wide"
    make_model(hidden_size=64, intermediate_size=128).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_base_answers_with_and_without_its_adapter(tmp_path: Path, wide_model_dir: Path, bits: int) -> None:
    pytest.importorskip("bitsandbytes")
    tuned = adapter(tmp_path / "tuned", wide_model_dir, 1)
    settings = config_of(wide_model_dir, quantization_bit=bits)
    alone = Engine.from_config(settings)
    assert alone.model.config.quantization_config is not None
    engine = Engine.from_config(settings.replace(adapter_name_or_path=[str(tuned)]))
    assert engine.weights.has_both
    with_adapter = logits_of(engine)
    assert len({engine.fingerprint("tuned"), engine.fingerprint("base")}) == 2
    engine.weights.use("base")
    assert torch.equal(logits_of(engine), logits_of(alone))
    assert not torch.allclose(logits_of(engine), with_adapter, atol=1e-3)
    assert engine.fingerprint("base") == alone.fingerprint()
    assert engine.generate([PROMPT], SHORT)[0].tokens


@pytest.mark.filterwarnings("ignore")
def test_several_adapters_on_a_quantized_base_are_refused(tmp_path: Path, wide_model_dir: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folders = [str(adapter(tmp_path / str(seed), wide_model_dir, seed)) for seed in (1, 2)]
    with pytest.raises(ModelError, match="one adapter"):
        Engine.from_config(config_of(wide_model_dir, quantization_bit=4, adapter_name_or_path=folders))
