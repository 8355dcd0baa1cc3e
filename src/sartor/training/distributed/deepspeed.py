"""DeepSpeed through accelerate: its config with the `auto` values filled in, and one step of its engine."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError
from sartor.training.distributed import processes

OURS = ("optimizer", "scheduler")
"""Sections that Sartor's own `optim` and `lr_scheduler_type` stand for."""


def plugin(config: RunConfig, dtype: str) -> Any:
    """accelerate's DeepSpeedPlugin for `deepspeed: ds_config.json`.

    Raises: ConfigError when the package or the file is missing, or the file says other than the settings.
    """
    path = str(config.train.deepspeed)
    filled = fill(read(path), config, dtype, processes.world_size(), path)
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            "DeepSpeed is not installed.", f"deepspeed: {path}", "pip install deepspeed, or write fsdp: true instead."
        )
    if processes.world_size() == 1:
        raise ConfigError(
            "deepspeed needs several processes.",
            f"deepspeed: {path}",
            "Start with torchrun --nproc-per-node N -m sartor train …",
        )
    from accelerate.utils import DeepSpeedPlugin

    return DeepSpeedPlugin(hf_ds_config=filled)


def read(path: str) -> dict[str, Any]:
    """The file's object. Raises: ConfigError when it is none, or has a section that Sartor's settings stand for."""
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"The DeepSpeed config cannot be read: {error}.", path, "Name a JSON file.") from error
    if not isinstance(content, dict) or "zero_optimization" not in content:
        raise ConfigError("The DeepSpeed config has no zero_optimization.", path, 'Write {"stage": 2} there.')
    if content.get("fp16", {}).get("enabled") is True:
        raise ConfigError("fp16 is not offered.", path, "Turn it off there, and bf16 on.")
    for section in OURS:
        if section in content:
            raise ConfigError(
                f"The DeepSpeed config has its own {section}.",
                path,
                "Take it out: optim, learning_rate and lr_scheduler_type say the same.",
            )
    return content


def fill(content: Mapping[str, Any], config: RunConfig, dtype: str, processes: int, path: str) -> dict[str, Any]:
    """A copy with each `auto` replaced by the setting that it stands for, as transformers' Trainer does.

    Raises: ConfigError when a number is written there that is not the setting's.
    """
    train = config.train
    rows, pieces = train.per_device_train_batch_size, train.gradient_accumulation_steps
    filled: dict[str, Any] = json.loads(json.dumps(content))
    for key, value in {
        "train_micro_batch_size_per_gpu": rows,
        "gradient_accumulation_steps": pieces,
        "train_batch_size": rows * pieces * processes,
        "gradient_clipping": train.max_grad_norm,
    }.items():
        if filled.get(key, "auto") == "auto":
            filled[key] = value
        elif filled[key] != value:
            raise ConfigError(
                f"The DeepSpeed config has {key} {filled[key]}, the settings give {value}.", path, 'Write "auto" there.'
            )
    for section, enabled in (("bf16", dtype == "bfloat16"), ("fp16", False)):
        if filled.get(section, {}).get("enabled", "auto") == "auto":
            filled[section] = {"enabled": enabled}
    filled["zero_allow_untested_optimizer"] = True  # ours
    if filled["zero_optimization"].get("stage") == 3:
        filled["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True  # else nothing could be saved
    return filled


class Engine:
    """The engine that accelerate made: gradients of one global batch, then a step, whatever the number of batches."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add gradients; `loss` is this process's share of a sum (the engine would average it)."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * processes.world_size() * self._engine.gradient_accumulation_steps())

    def step(self) -> float:
        """Clip, move the weights, clear the gradients; the gradient's norm before it was clipped."""
        self._engine.step()
        return float(self._engine.get_global_grad_norm() or 0.0)


def full_state(accelerator: Any, engine: Any) -> dict[str, Tensor]:
    """The model's weights whole, by their own names (every process calls; empty in all but the first for ZeRO 3)."""
    state = accelerator.get_state_dict(engine) or {}
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}
