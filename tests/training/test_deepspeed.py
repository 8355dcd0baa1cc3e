"""DeepSpeed's config is filled in or refused by name; its engine is driven as a sum; two real processes where it is."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sartor.base.errors import ConfigError
from sartor.training.distributed import deepspeed, processes
from support.process_runs import finish, losses, project_settings, weights
from support.training_runs import config_of, plan_of, rows

AUTO = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto"},
    "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"},
}


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: Path) -> dict[str, Any]:
    return project_settings(tmp_path, tiny_model_dir, val_size=3, max_steps=6, gradient_accumulation_steps=2)


def written(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_auto_takes_the_settings(tmp_path: Path) -> None:
    config = config_of(per_device_train_batch_size=4, gradient_accumulation_steps=2, max_grad_norm=0.5)
    filled = deepspeed.fill(deepspeed.read(written(tmp_path, AUTO)), config, "bfloat16", 3, "ds.json")
    assert filled["train_micro_batch_size_per_gpu"] == 4
    assert filled["gradient_accumulation_steps"] == 2
    assert filled["train_batch_size"] == 24
    assert filled["gradient_clipping"] == 0.5
    assert (filled["bf16"], filled["fp16"]) == ({"enabled": True}, {"enabled": False})
    assert filled["zero_optimization"]["reduce_bucket_size"] == "auto"  # accelerate knows the hidden size
    assert deepspeed.fill(AUTO, config, "float32", 1, "ds.json")["bf16"] == {"enabled": False}
    assert AUTO["train_batch_size"] == "auto"


def test_stage_3_gathers_the_weights_that_are_saved() -> None:
    content = {**AUTO, "zero_optimization": {"stage": 3}}
    filled = deepspeed.fill(content, config_of(), "float32", 2, "ds.json")
    assert filled["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "no zero_optimization"),
        ([], "no zero_optimization"),
        ({**AUTO, "optimizer": {"type": "AdamW"}}, "its own optimizer"),
        ({**AUTO, "scheduler": {"type": "WarmupLR"}}, "its own scheduler"),
        ({**AUTO, "fp16": {"enabled": True}}, "fp16"),
        ({**AUTO, "gradient_accumulation_steps": 7}, "gradient_accumulation_steps 7, the settings give 1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, content: Any, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ConfigError, match=said):
        deepspeed.fill(deepspeed.read(path), config_of(), "float32", 2, path)


def test_a_missing_file_and_a_missing_package_are_three_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Could not read"):
        deepspeed.read(str(tmp_path / "none.json"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        deepspeed.plugin(config_of(deepspeed=written(tmp_path, AUTO)), "float32")
    assert len(str(caught.value).splitlines()) == 3
    assert "pip install deepspeed" in str(caught.value)


def test_one_process_is_told_to_use_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("deepspeed")
    fake.__spec__ = importlib.util.spec_from_loader("deepspeed", loader=None)
    monkeypatch.setitem(sys.modules, "deepspeed", fake)
    with pytest.raises(ConfigError, match="several processes"):
        deepspeed.plugin(config_of(deepspeed=written(tmp_path, AUTO)), "float32")


@pytest.mark.parametrize("other", [{"fsdp": True}, {"stage": "dpo"}])
def test_what_it_does_not_go_with_is_refused_before_anything_is_loaded(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="stage sft"):
        plan_of(config_of(deepspeed=written(tmp_path, AUTO), **other), rows(8), [])


class FakeEngine:
    """DeepSpeed's bookkeeping: losses divided by the accumulation steps, gradients averaged over two processes."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight, self.boundaries, self.norm = weight, [], 0.0  # type: torch.Tensor, list[bool], float

    def gradient_accumulation_steps(self) -> int:
        return 4

    def set_gradient_accumulation_boundary(self, last: bool) -> None:
        self.boundaries.append(last)

    def backward(self, loss: torch.Tensor) -> None:
        (loss / 4 / 2).backward()

    def step(self) -> None:
        assert self.weight.grad is not None
        self.norm = float(self.weight.grad.norm())

    def get_global_grad_norm(self) -> float:
        return self.norm


def test_the_engine_gives_the_sum_of_all_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    weight = torch.ones(1, requires_grad=True)
    fake = FakeEngine(weight)
    engine = deepspeed.Engine(fake)
    for number in range(3):  # three, not the four that the config says
        engine.backward((weight * 2).sum(), last=number == 2)
    assert engine.step() == 6.0
    assert fake.boundaries == [False, False, True]


@pytest.mark.real
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_under_zero_equal_one(settings: dict[str, Any], tmp_path: Path, stage: int) -> None:
    one = finish(settings, 1, tmp_path)
    path = written(tmp_path, {**AUTO, "zero_optimization": {"stage": stage, "reduce_bucket_size": "auto"}})
    split = {"gradient_accumulation_steps": 1, "output_dir": str(tmp_path / "two"), "deepspeed": path, "save_steps": 3}
    two = finish({**settings, **split}, 2, tmp_path)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-3, atol=2e-4)
    assert (two / "checkpoint-3" / "adapter_model.safetensors").is_file()
