"""Plan: what was decided before the first step, each number with its reason; never from timings or free memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError
from sartor.base.settings import TrainSettings
from sartor.base.types import Encoded, Judged, Pair

CPU_MICRO_TOKENS = 2048
"""Padded tokens a CPU takes at once: throughput is flat above about a thousand, memory is not (measured 2026-11-23)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plan is made from: shapes of the data and of the machine."""

    rows: int
    eval_rows: int
    longest: int
    tokens: int
    label_tokens: int
    device: str
    device_memory_bytes: int
    processes: int = 1

    @classmethod
    def of(cls, rows: Sequence[Encoded], eval_rows: Sequence[Encoded], device: str) -> Facts:
        """Count the encoded rows; memory is the device's total, never what is free."""
        import psutil

        lengths = [len(part) for row in (*rows, *eval_rows) for part in sequences(row)]
        if device == "cuda":
            memory = torch.cuda.get_device_properties(0).total_memory
        else:
            memory = psutil.virtual_memory().total
        label_tokens = sum(part.label_tokens for row in rows for part in sequences(row))
        tokens = sum(len(part) for row in rows for part in sequences(row))
        world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        return cls(len(rows), len(eval_rows), max(lengths, default=0), tokens, label_tokens, device, memory, world)


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions of one run, and the reason of each."""

    total_steps: int
    steps_per_epoch: int
    global_batch: int
    warmup_steps: int
    micro_rows: int
    micro_tokens: int
    packing: bool
    dtype: str
    device: str
    save_steps: int | None
    eval_steps: int | None
    rows: int
    reasons: Mapping[str, str]
    accepted: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        return cls(**{name: value[name] for name in cls.__slots__})


def make_plan(config: RunConfig, facts: Facts) -> Plan:
    """Decide steps, batches, type and cadence from what was asked and from shapes.

    Raises: ConfigError where settings exclude each other.
    """
    train = config.train
    if train.save_only_model and train.load_best_model_at_end:
        raise ConfigError("save_only_model keeps no state to go back to.", "load_best_model_at_end", "Drop one.")
    if train.deepspeed:
        raise ConfigError("DeepSpeed is not offered yet.", "deepspeed", "Write fsdp: true and start with torchrun.")
    if train.load_best_model_at_end and not facts.eval_rows:
        raise ConfigError("There are no held-out rows to find the best model by.", "load_best_model_at_end",
                          "Write val_size or eval_dataset, or leave it out.")  # fmt: skip
    global_batch = train.per_device_train_batch_size * train.gradient_accumulation_steps * facts.processes
    steps_per_epoch = math.ceil(facts.rows / global_batch)
    total = train.max_steps if train.max_steps > 0 else math.ceil(train.num_train_epochs * steps_per_epoch)
    warmup = train.warmup_steps or train.warmup_ratio
    warmup_steps = int(warmup) if warmup >= 1 else math.ceil(warmup * total)
    micro_tokens = max(CPU_MICRO_TOKENS, facts.longest) if facts.device == "cpu" else _gpu_micro_tokens(facts)
    dtype = _dtype(config, facts.device)
    reasons = {
        "total_steps": "max_steps" if train.max_steps > 0 else
        f"{facts.rows} rows / {global_batch} a step = {steps_per_epoch} steps × {train.num_train_epochs:g} epochs",
        "global_batch": f"{train.per_device_train_batch_size} rows × {train.gradient_accumulation_steps} × "
        f"{facts.processes} processes",
        "warmup_steps": "warmup_steps" if train.warmup_steps else f"warmup_ratio {train.warmup_ratio:g} of all steps",
        "micro_tokens": f"at most {micro_tokens} padded tokens at once on {facts.device}; longest row {facts.longest}",
        "dtype": f"asked: bf16={train.bf16}, dtype={config.model.dtype}; device {facts.device}",
        "recomputation": "asked: gradient_checkpointing" if recomputes(train) else "none was asked for",
    }  # fmt: skip
    return Plan(
        total, steps_per_epoch, global_batch, warmup_steps, train.per_device_train_batch_size
        * train.gradient_accumulation_steps, micro_tokens, train.packing or train.neat_packing, dtype, facts.device,
        _cadence(train.save_strategy, train.save_steps, total, steps_per_epoch),
        _eval_cadence(config, facts, total, steps_per_epoch), facts.rows, reasons, _without_effect(config),
    )  # fmt: skip


def recomputes(train: TrainSettings) -> bool:
    """Whether activations are computed again in the backward pass: only when asked."""
    return bool(train.gradient_checkpointing) and not train.disable_gradient_checkpointing


def _without_effect(config: RunConfig) -> dict[str, str]:
    """The accepted keys that change nothing, and why; `torch_compile` is one of them so far."""
    why = {"torch_compile": "Blocks are not compiled yet: short runs on a CPU do not win its time back."}
    return {**config.accepted, **(why if config.train.torch_compile else {})}


def sequences(row: Encoded) -> tuple[Any, ...]:
    """The one or two token sequences of an encoded row."""
    if isinstance(row, Pair):
        return row.chosen, row.rejected
    return (row.sequence,) if isinstance(row, Judged) else (row,)


def _gpu_micro_tokens(facts: Facts) -> int:
    return max(facts.longest, min(16384, int(facts.device_memory_bytes / 2**30 * 512)))


def _dtype(config: RunConfig, device: str) -> str:
    from sartor.learn.model import dtype_of

    if config.train.bf16 is not None and config.model.dtype == "auto":
        return "bfloat16" if config.train.bf16 else "float32"
    return str(dtype_of(config.model, device)).removeprefix("torch.")


def _cadence(strategy: str, steps: float, total: int, steps_per_epoch: int) -> int | None:
    if strategy == "no":
        return None
    return steps_per_epoch if strategy == "epoch" else max(1, round(steps * total) if steps < 1 else round(steps))


def _eval_cadence(config: RunConfig, facts: Facts, total: int, steps_per_epoch: int) -> int | None:
    if not facts.eval_rows:
        return None
    strategy = config.evaluation.eval_strategy or "epoch"
    return _cadence(strategy, config.evaluation.eval_steps or config.train.save_steps, total, steps_per_epoch)
