"""Plan: what was decided before the first step, each number with its reason; never from timings or free memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError
from sartor.base.types import Encoded, Pair, UnpairedSequence
from sartor.model.shape import Shape
from sartor.training.memory_estimate import activation_bytes_per_token, static_bytes

CPU_MICRO_TOKENS, GPU_MICRO_TOKENS = 2048, 16384
"""Padded tokens a device takes at most at once. On a CPU throughput is flat above about a thousand, memory is not
(measured 2026-11-23)."""
PACK_TOKENS = 2048
"""Packed rows are as long as this, or as the longest example: attention's cost grows with the square."""
USABLE_MEMORY_FRAC = {"cuda": 0.9, "mps": 0.7, "cpu": 0.7}
"""The share of a device's total memory that the plan fills; the rest is the runtime's, or other programs'."""
CPU_HEAD_BYTES = 32 << 20
"""A block of logits; see `fused.CHUNK_BYTES`."""
MAX_HEAD_BYTES = 1 << 30
MIN_STEPS_TO_COMPILE = 1000
"""Steps. Compiling a block takes one to two minutes on a GPU; a step would have to win back a tenth of a second."""


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What the plan is made from: shapes of the data and of the machine."""

    rows: int
    eval_rows: int
    longest: int
    tokens: int
    label_tokens: int
    device: str
    device_memory_bytes: int
    processes: int = 1
    shape: Shape | None = None
    """The model's; unknown: the device's usual micro-batch is taken."""

    @classmethod
    def from_rows(
        cls, rows: Sequence[Encoded], eval_rows: Sequence[Encoded], device: str, shape: Shape | None = None
    ) -> PlanInputs:
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
        return cls(
            len(rows), len(eval_rows), max(lengths, default=0), tokens, label_tokens, device, memory, world, shape
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions of one run, and the reason of each."""

    total_steps: int
    steps_per_epoch: int
    global_batch: int
    warmup_steps: int
    micro_batch_size: int
    micro_tokens: int
    packing: bool
    dtype: str
    device: str
    save_steps: int | None
    eval_steps: int | None
    rows: int
    reasons: Mapping[str, str]
    ignored_keys: Mapping[str, str]
    gradient_checkpointing: bool = False
    """Activations are computed again in the backward pass."""
    compiled: bool = False
    """The repeated block is compiled."""
    head_chunk_bytes: int = CPU_HEAD_BYTES
    """The largest block of logits."""
    pack_tokens: int = PACK_TOKENS
    streaming: bool = False
    """Rows come from a stream, shuffled already: `rows` is how many positions the run takes, one epoch."""

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        known = [f.name for f in fields(cls) if f.name in value or f.default is MISSING]
        return cls(**{name: value[name] for name in known})


def make_plan(config: RunConfig, inputs: PlanInputs) -> Plan:
    """Decide steps, batches, type and cadence from what was asked and from shapes.

    Raises: ConfigError where settings exclude each other.
    """
    train = config.train
    if train.save_only_model and train.load_best_model_at_end:
        raise ConfigError("save_only_model keeps no state to go back to.", "load_best_model_at_end", "Drop one.")
    if train.deepspeed and (train.fsdp or train.load_best_model_at_end or config.method.stage != "sft"):
        raise ConfigError(
            "deepspeed goes with stage sft, and without fsdp or load_best_model_at_end.",
            "deepspeed",
            "Drop the other, or use fsdp: true.",
        )
    if train.load_best_model_at_end and not inputs.eval_rows:
        raise ConfigError(
            "There are no held-out rows to find the best model by.",
            "load_best_model_at_end",
            "Write val_size or eval_dataset, or leave it out.",
        )
    global_batch = train.per_device_train_batch_size * train.gradient_accumulation_steps * inputs.processes
    streaming = config.data.streaming
    rows = train.max_steps * global_batch if streaming else inputs.rows
    steps_per_epoch = math.ceil(rows / global_batch)
    total = train.max_steps if train.max_steps > 0 else math.ceil(train.num_train_epochs * steps_per_epoch)
    warmup = train.warmup_steps or train.warmup_ratio
    warmup_steps = int(warmup) if warmup >= 1 else math.ceil(warmup * total)
    dtype = _dtype(config, inputs.device)
    memory = _fit(config, inputs, dtype)
    compiled, why_compiled = _compiled(config, inputs, total)
    reasons = {
        "total_steps": "max_steps"
        if train.max_steps > 0
        else f"{inputs.rows} rows / {global_batch} a step = {steps_per_epoch} steps × "
        f"{train.num_train_epochs:g} epochs",
        "global_batch": f"{train.per_device_train_batch_size} rows × {train.gradient_accumulation_steps} × "
        f"{inputs.processes} processes",
        "warmup_steps": "warmup_steps" if train.warmup_steps else f"warmup_ratio {train.warmup_ratio:g} of all steps",
        "micro_tokens": memory.reason,
        "dtype": f"asked: bf16={train.bf16}, dtype={config.model.dtype}; device {inputs.device}",
        "recomputation": memory.checkpointing_reason,
        "head_chunk_bytes": f"{memory.head_chunk_bytes >> 20} MiB of logits at once on {inputs.device}",
        "compiled": why_compiled,
    }
    micro_rows = train.per_device_train_batch_size * train.gradient_accumulation_steps
    return Plan(
        total,
        steps_per_epoch,
        global_batch,
        warmup_steps,
        micro_rows,
        memory.micro_tokens,
        train.packing or train.neat_packing,
        dtype,
        inputs.device,
        _cadence(train.save_strategy, train.save_steps, total, steps_per_epoch),
        _eval_cadence(config, inputs, total, steps_per_epoch),
        rows,
        reasons,
        {key: why.render("en") for key, why in config.ignored_keys.items()},
        memory.gradient_checkpointing,
        compiled,
        memory.head_chunk_bytes,
        min(memory.micro_tokens, max(PACK_TOKENS, inputs.longest)),
        streaming,
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """What follows from memory."""

    micro_tokens: int
    gradient_checkpointing: bool
    head_chunk_bytes: int
    reason: str
    checkpointing_reason: str


def _fit(config: RunConfig, inputs: PlanInputs, dtype: str) -> _Fit:
    """The first rung of the ladder that fits: usual micro-batch, its halves down to the longest row, recomputation."""
    train, on_cpu = config.train, inputs.device == "cpu"
    most = CPU_MICRO_TOKENS if on_cpu else GPU_MICRO_TOKENS
    head = CPU_HEAD_BYTES if on_cpu else max(CPU_HEAD_BYTES, min(MAX_HEAD_BYTES, inputs.device_memory_bytes // 64))
    asked = bool(train.gradient_checkpointing) and not train.disable_gradient_checkpointing
    refused = train.gradient_checkpointing is False or train.disable_gradient_checkpointing
    why_recompute = "asked: gradient_checkpointing" if asked else "not needed"
    if refused:
        why_recompute = "asked: none"
    if inputs.shape is None:
        tokens = most if on_cpu else min(most, int(inputs.device_memory_bytes / 2**30 * 512))
        tokens = max(inputs.longest, tokens)
        why = f"at most {tokens} padded tokens at once on {inputs.device}; longest row {inputs.longest}"
        return _Fit(tokens, asked, head, why, why_recompute)
    width = 2 if dtype == "bfloat16" else 4
    copies = bool(config.method.ref_model) or (
        config.method.stage in ("dpo", "kto") and config.method.finetuning_type != "lora"
    )
    share = inputs.processes if train.fsdp or train.deepspeed else 1
    standing = static_bytes(inputs.shape, config, width, copies) / share + 2.5 * head
    usable = USABLE_MEMORY_FRAC.get(inputs.device, 0.7) * inputs.device_memory_bytes
    rungs = [
        (tokens, again)
        for again in ((True,) if asked else (False,) if refused else (False, True))
        for tokens in _halves(most, inputs.longest)
    ]
    for tokens, again in rungs:
        needed = standing + tokens * activation_bytes_per_token(
            inputs.shape, width, inputs.longest, inputs.device, again
        )
        if needed <= usable:
            break
    if again and not asked:
        least = _halves(most, inputs.longest)[-1]
        why_recompute = f"without it not even {least} tokens would fit"
    why = (
        f"at most {tokens} padded tokens at once on {inputs.device}: {needed / 2**30:.2f} GiB expected of "
        f"{usable / 2**30:.2f} usable ({inputs.device_memory_bytes / 2**30:.2f} in all); longest row {inputs.longest}"
    )
    if needed > usable:
        why += "; more than there is: the pre-flight decides"
    return _Fit(tokens, again, head, why, why_recompute)


def _halves(most: int, longest: int) -> list[int]:
    """`most` and its halves that still hold the longest row; the longest row itself when it is longer."""
    made = [max(most, longest)]
    while made[-1] // 2 >= longest and made[-1] > 64:
        made.append(made[-1] // 2)
    return made


def _compiled(config: RunConfig, inputs: PlanInputs, total: int) -> tuple[bool, str]:
    """Whether the repeated block is compiled, and why."""
    asked = config.train.torch_compile
    if asked is not None:
        return asked, f"asked: torch_compile={asked}"
    if inputs.device != "cuda" or config.model.quantization_bit or config.train.fsdp:
        return False, "it pays on one CUDA device with plain weights only"
    pays = total >= MIN_STEPS_TO_COMPILE
    return pays, f"{total} steps; it pays from {MIN_STEPS_TO_COMPILE} on"


def sequences(row: Encoded) -> tuple[Any, ...]:
    """The one or two token sequences of an encoded row."""
    if isinstance(row, Pair):
        return row.chosen, row.rejected
    return (row.sequence,) if isinstance(row, UnpairedSequence) else (row,)


def _dtype(config: RunConfig, device: str) -> str:
    from sartor.model.load import dtype_of

    if config.train.bf16 is not None and config.model.dtype == "auto":
        return "bfloat16" if config.train.bf16 else "float32"
    return str(dtype_of(config.model, device)).removeprefix("torch.")


def _cadence(strategy: str, steps: float, total: int, steps_per_epoch: int) -> int | None:
    if strategy == "no":
        return None
    return steps_per_epoch if strategy == "epoch" else max(1, round(steps * total) if steps < 1 else round(steps))


def _eval_cadence(config: RunConfig, inputs: PlanInputs, total: int, steps_per_epoch: int) -> int | None:
    if not inputs.eval_rows:
        return None
    strategy = config.evaluation.eval_strategy or "epoch"
    return _cadence(strategy, config.evaluation.eval_steps or config.train.save_steps, total, steps_per_epoch)
