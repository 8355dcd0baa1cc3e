"""Loading: names resolve to folders, the hub that is asked for is asked, adapters name the layers they move."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import ModelError
from sartor.base.settings import MethodSettings, ModelSettings
from sartor.model.load import adapt, load_model
from sartor.model.locate import resolve_model
from sartor.model.lora_targets import lora_targets


def test_a_folder_is_itself_and_one_without_a_model_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    assert resolve_model(str(tiny_model_dir)) == str(tiny_model_dir)
    with pytest.raises(ModelError, match=r"config\.json"):
        resolve_model(str(tmp_path))


def test_modelscope_is_asked_when_the_environment_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str | None]] = []
    module = types.ModuleType("modelscope")

    def snapshot_download(name: str, revision: str | None = None) -> str:
        asked.append((name, revision))
        return str(tmp_path)

    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope", module)
    with pytest.raises(ModelError, match="hub cannot be reached"):
        resolve_model("Qwen/Qwen3-0.6B")
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert resolve_model("Qwen/Qwen3-0.6B") == str(tmp_path)
    assert asked == [("Qwen/Qwen3-0.6B", None)]


def test_lora_goes_on_every_linear_layer_but_the_head_or_on_those_named(tiny_model: Any) -> None:
    every = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert lora_targets(tiny_model, ("all",)) == every
    assert lora_targets(tiny_model, ("q_proj", "v_proj")) == ["q_proj", "v_proj"]
    with pytest.raises(ModelError, match=r"no linear layer 'query'.*"):
        lora_targets(tiny_model, ("query",))


def test_only_what_should_move_moves(tiny_model: Any) -> None:
    tuned = adapt(tiny_model, MethodSettings(lora_rank=2, lora_target=("q_proj",)))
    moving = {name for name, p in tuned.named_parameters() if p.requires_grad}
    assert len(moving) == 4
    assert all("q_proj.lora_" in name for name in moving)


def test_what_this_machine_lacks_is_refused(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    import torch

    settings = {"model_name_or_path": str(tiny_model_dir)}
    with pytest.raises(ModelError, match="require a CUDA GPU or a CPU"):
        load_model(ModelSettings(**settings, quantization_bit=4), device="mps")  # type: ignore[arg-type]
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *r: None if name == "bitsandbytes" else real(name))
    with pytest.raises(ModelError, match="require bitsandbytes"):
        load_model(ModelSettings(**settings, quantization_bit=4, use_cpu=True))  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="No cuda device"):
            load_model(ModelSettings(**settings, device="cuda"))  # type: ignore[arg-type]


def test_a_pickled_model_is_not_loaded(tiny_model_dir: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="Could not load the model"):
        load_model(ModelSettings(model_name_or_path=str(folder), use_cpu=True))
