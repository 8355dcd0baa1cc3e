"""DeepSpeed through accelerate: its config with the `auto` values filled in, and one step of its engine."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, SartorError
from sartor.base.open_file import read_regular
from sartor.training.distributed import processes

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.utils import DeepSpeedPlugin

OURS = ("optimizer", "scheduler")
"""Sections that the settings `optim` and `lr_scheduler_type` replace."""


def plugin(config: RunConfig, dtype: str) -> DeepSpeedPlugin:
    """accelerate's DeepSpeedPlugin for `deepspeed: ds_config.json`.

    Raises: ConfigError when the package or the file is missing, or the file contradicts the settings.
    """
    path = str(config.train.deepspeed)
    filled = fill(read(path), config, dtype, processes.world_size(), path)
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            "DeepSpeed is not installed.",
            f"deepspeed: {path}",
            "Run: pip install deepspeed, or set fsdp: true instead.",
        )
    if processes.world_size() == 1:
        raise ConfigError(
            "deepspeed needs several processes.",
            f"deepspeed: {path}",
            "Run: torchrun --nproc-per-node N -m sartor train …",
        )
    from accelerate.utils import DeepSpeedPlugin

    return DeepSpeedPlugin(hf_ds_config=filled)


def read(path: str) -> dict[str, Any]:
    """The file's object. Raises: ConfigError when it is not one, or has a section that the settings replace."""
    try:
        content = json.loads(read_regular(Path(path).expanduser()))
    except (SartorError, ValueError) as error:
        raise ConfigError(
            "Could not read the DeepSpeed config: {reason}.", path, "Give a JSON file.", reason=error
        ) from error
    if not isinstance(content, dict) or "zero_optimization" not in content:
        raise ConfigError("The DeepSpeed config has no zero_optimization.", path, 'Set it to {"stage": 2}.')
    if content.get("fp16", {}).get("enabled") is True:
        raise ConfigError("fp16 is not supported.", path, "Disable it, and enable bf16.")
    for section in OURS:
        if section in content:
            raise ConfigError(
                "The DeepSpeed config has its own {section}.",
                path,
                "Remove it: optim, learning_rate and lr_scheduler_type set the same.",
                section=section,
            )
    return content


def fill(content: Mapping[str, Any], config: RunConfig, dtype: str, processes: int, path: str) -> dict[str, Any]:
    """A copy with each `auto` replaced by the corresponding setting, as transformers' Trainer does.

    Raises: ConfigError when the file has a number that differs from the setting.
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
                "The DeepSpeed config has {key} {value}, the settings give {expected}.",
                path,
                'Set it to "auto".',
                key=key,
                value=filled[key],
                expected=value,
            )
    for section, enabled in (("bf16", dtype == "bfloat16"), ("fp16", False)):
        if filled.get(section, {}).get("enabled", "auto") == "auto":
            filled[section] = {"enabled": enabled}
    filled["zero_allow_untested_optimizer"] = True  # the optimizers of training/optimizers
    if filled["zero_optimization"].get("stage") == 3:
        filled["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True  # or nothing could be saved
    return filled


class DeepSpeedEngine(Protocol):
    """What is used of DeepSpeed's engine, which accelerate makes."""

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None: ...
    def gradient_accumulation_steps(self) -> int: ...
    def backward(self, loss: Tensor) -> None: ...
    def step(self) -> None: ...
    def get_global_grad_norm(self) -> float | None: ...


class Engine:
    """Sums the gradients of one global batch, whatever the number of its micro-batches, then takes a step."""

    def __init__(self, engine: DeepSpeedEngine) -> None:
        self._engine = engine

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add gradients; `loss` is this process's share of a sum (the engine would average it)."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * processes.world_size() * self._engine.gradient_accumulation_steps())

    def step(self) -> float:
        """Clip, update the weights, clear the gradients; returns the gradients' norm before clipping."""
        self._engine.step()
        return float(self._engine.get_global_grad_norm() or 0.0)


def full_state(accelerator: Accelerator, engine: nn.Module) -> dict[str, Tensor]:
    """The model's unsharded weights by name. Every process must call; with ZeRO 3 it is empty in all but the first."""
    state = accelerator.get_state_dict(engine) or {}
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}
