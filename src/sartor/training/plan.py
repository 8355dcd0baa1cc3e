"""The plan of a training: what is decided before the first step, each number with its reason.

It depends on shapes and total memory, never on timings or free memory: the same inputs give the same plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from itertools import pairwise
from typing import Any

import torch

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError
from sartor.base.i18n import Text, tr
from sartor.base.types import Encoded, token_sequences
from sartor.base.uploads import uploads_of
from sartor.model.load import dtype_of
from sartor.model.shape import Shape
from sartor.training.memory import device_memory_bytes
from sartor.training.memory_estimate import activation_bytes_per_token, static_bytes
from sartor.training.stages import STAGES, BatchLimits

CPU_MICRO_TOKENS, GPU_MICRO_TOKENS = 2048, 16384
"""Padded tokens of a micro-batch at most. On a CPU throughput is flat above about a thousand, memory is not
(measured 2026-11-23)."""
PACK_TOKENS = 2048
"""Packed rows are as long as this, or as the longest example: attention's cost grows with the square."""
USABLE_MEMORY_FRAC = {"cuda": 0.9, "mps": 0.7, "cpu": 0.7}
"""The fraction of a device's total memory that the plan fills; the rest is for the runtime and other programs."""
CPU_HEAD_BYTES = 32 << 20
"""A block of logits; see `kernels.CHUNK_BYTES`."""
MAX_HEAD_BYTES = 1 << 30
FIRST_TRAINING_REASON = tr("Sartor's defaults for a first training; a settings file keeps LLaMA-Factory's.")
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
    """The model's; without it the device's usual micro-batch is taken."""
    split_rows: int = 0
    """Conversations that became several sequences, which are rows here."""
    repeated_tokens: int = 0
    """Their prompt tokens that occur again in a later sequence of the same conversation."""

    @classmethod
    def from_rows(
        cls, rows: Sequence[Encoded], eval_rows: Sequence[Encoded], device: str, shape: Shape | None = None
    ) -> PlanInputs:
        """Count the encoded rows; memory is the device's total, never what is free."""
        sequences = [sequence for row in rows for sequence in token_sequences(row)]
        split = [before for before, after in pairwise(sequences) if after.part and before.prompt_tokens]
        lengths = [len(sequence) for row in (*rows, *eval_rows) for sequence in token_sequences(row)]
        return cls(
            rows=len(rows),
            eval_rows=len(eval_rows),
            longest=max(lengths, default=0),
            tokens=sum(len(sequence) for sequence in sequences),
            label_tokens=sum(sequence.label_tokens for sequence in sequences),
            device=device,
            device_memory_bytes=device_memory_bytes(torch.device(device)),
            processes=torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
            shape=shape,
            split_rows=len({before.origin.id for before in split if before.origin}),
            repeated_tokens=sum(before.prompt_tokens for before in split),
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
    reasons: Mapping[str, Text]
    ignored_keys: Mapping[str, Text]
    gradient_checkpointing: bool = False
    """Activations are computed again in the backward pass."""
    compiled: bool = False
    """The repeated block is compiled."""
    head_chunk_bytes: int = CPU_HEAD_BYTES
    """The largest block of logits."""
    pack_tokens: int = PACK_TOKENS
    streaming: bool = False
    """Rows come from a stream, shuffled already: `rows` is how many positions the run takes, one epoch."""
    model_name_or_path: str = ""
    """The model that is trained: given, or the default."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Settings that nobody gave: those of a first training."""
    shortcuts_off: tuple[str, ...] = ()
    """What of ours is not used, because it differs from the model's own forward pass (`model.shortcuts`)."""
    never_pack: bool = False
    """The model would mix the examples of a packed row."""

    def limits(self, *, divisor: int = 1, max_rows: int | None = None) -> BatchLimits:
        """How micro-batches are cut. `divisor` makes them smaller, after running out of memory; `max_rows` replaces the
        plan's own number of rows."""
        return BatchLimits(
            max_rows=max(1, (max_rows or self.micro_batch_size) // divisor),
            max_tokens=max(1, self.micro_tokens // divisor),
            packing=self.packing,
            pack_tokens=self.pack_tokens,
            never_pack=self.never_pack,
        )

    def to_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__slots__}
        texts = ("reasons", "ignored_keys")
        return {**values, **{name: {k: text.to_json() for k, text in values[name].items()} for name in texts}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """What `to_json` wrote; settings that an older file lacks take their defaults."""
        needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        known = {f.name: value[f.name] for f in fields(cls) if f.name in value or f.name in needed}
        for name in ("reasons", "ignored_keys"):
            known[name] = {key: Text.from_json(text) for key, text in known[name].items()}
        known["shortcuts_off"] = tuple(known.get("shortcuts_off", ()))
        return cls(**known)


def make_plan(config: RunConfig, inputs: PlanInputs) -> Plan:
    """Decide steps, batches, number type and intervals from the settings and from shapes.

    Raises: ConfigError where settings exclude each other.
    """
    train = config.train
    rows_per_step = train.per_device_train_batch_size * train.gradient_accumulation_steps
    global_batch = rows_per_step * inputs.processes
    rows = train.max_steps * global_batch if config.data.streaming else inputs.rows
    steps_per_epoch = math.ceil(rows / global_batch)
    total_steps = train.max_steps if train.max_steps > 0 else math.ceil(train.num_train_epochs * steps_per_epoch)
    warmup = train.warmup_steps or train.warmup_ratio
    eval_steps = _eval_interval(config, inputs, total_steps, steps_per_epoch)
    _check_settings(config, inputs, eval_steps)
    dtype = _dtype(config, inputs.device)
    memory = _fit(config, inputs, dtype)
    compiled, compiled_reason = _compiled(config, inputs, total_steps)
    uploads = uploads_of(train.report_to, config.evaluation.judge_endpoint)
    reasons = {
        **_step_reasons(config, inputs, global_batch, steps_per_epoch),
        **_history_reason(inputs),
        "micro_tokens": memory.reason,
        "dtype": tr(
            "given: bf16={bf16}, dtype={dtype}; device {device}",
            bf16=train.bf16,
            dtype=config.model.dtype,
            device=inputs.device,
        ),
        "recomputation": memory.checkpointing_reason,
        "head_chunk_bytes": tr(
            "{size} MiB of logits at once on {device}", size=memory.head_chunk_bytes >> 20, device=inputs.device
        ),
        "compiled": compiled_reason,
        **({"defaults": FIRST_TRAINING_REASON} if config.defaults else {}),
        **{f"{upload.setting} → {upload.host}": upload.what for upload in uploads},
    }
    return Plan(
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        global_batch=global_batch,
        warmup_steps=int(warmup) if warmup >= 1 else math.ceil(warmup * total_steps),
        micro_batch_size=rows_per_step,
        micro_tokens=memory.micro_tokens,
        packing=train.packing or train.neat_packing,
        dtype=dtype,
        device=inputs.device,
        save_steps=_interval(train.save_strategy, train.save_steps, total_steps, steps_per_epoch),
        eval_steps=eval_steps,
        rows=rows,
        reasons=reasons,
        ignored_keys=config.ignored_keys,
        gradient_checkpointing=memory.gradient_checkpointing,
        compiled=compiled,
        head_chunk_bytes=memory.head_chunk_bytes,
        pack_tokens=min(memory.micro_tokens, max(PACK_TOKENS, inputs.longest)),
        streaming=config.data.streaming,
        model_name_or_path=config.model.model_name_or_path,
        defaults=config.defaults,
    )


def _check_settings(config: RunConfig, inputs: PlanInputs, eval_steps: int | None) -> None:
    """Raises: ConfigError where settings exclude each other."""
    train, stage = config.train, STAGES.get(config.method.stage)
    if train.save_only_model and train.load_best_model_at_end:
        raise ConfigError(
            "save_only_model and load_best_model_at_end exclude each other.",
            "load_best_model_at_end",
            "Remove one of them.",
        )
    if train.deepspeed and (train.fsdp or train.load_best_model_at_end or not stage.deepspeed):
        raise ConfigError(
            "deepspeed works with stage {stages} only, and not with fsdp or load_best_model_at_end.",
            "deepspeed",
            "Remove the other setting, or use fsdp: true.",
            stages=", ".join(known.name for known in STAGES.all() if known.deepspeed),
        )
    if train.load_best_model_at_end and not inputs.eval_rows:
        raise ConfigError(
            "No rows are held out to find the best model with.",
            "load_best_model_at_end",
            "Set val_size or eval_dataset, or remove load_best_model_at_end.",
        )
    if train.load_best_model_at_end and eval_steps is None:
        raise ConfigError(
            "load_best_model_at_end needs evaluations, and eval_strategy is no.",
            "load_best_model_at_end",
            "Set eval_strategy to steps or epoch, or remove load_best_model_at_end.",
        )


def _step_reasons(config: RunConfig, inputs: PlanInputs, global_batch: int, steps_per_epoch: int) -> dict[str, Text]:
    """Why so many steps, rows per step and warm-up steps."""
    train = config.train
    total_reason = tr(
        "{rows} rows / {batch} per step = {steps} steps × {epochs:g} epochs",
        rows=inputs.rows,
        batch=global_batch,
        steps=steps_per_epoch,
        epochs=train.num_train_epochs,
    )
    batch_reason = tr(
        "{rows} rows × {accumulation} × {processes} processes",
        rows=train.per_device_train_batch_size,
        accumulation=train.gradient_accumulation_steps,
        processes=inputs.processes,
    )
    warmup_reason = tr("warmup_ratio {ratio:g} of all steps", ratio=train.warmup_ratio)
    return {
        "total_steps": tr("max_steps") if train.max_steps > 0 else total_reason,
        "global_batch": batch_reason,
        "warmup_steps": tr("warmup_steps") if train.warmup_steps else warmup_reason,
    }


def _history_reason(inputs: PlanInputs) -> dict[str, Text]:
    """What conversations cost that became several sequences."""
    if not inputs.split_rows:
        return {}
    reason = tr(
        "{rows} conversations are several sequences, counted as rows here, because the template renders earlier "
        "answers differently; {repeated} of {tokens} tokens ({share}) are prompts that occur again",
        rows=inputs.split_rows,
        repeated=inputs.repeated_tokens,
        tokens=inputs.tokens,
        share=f"{inputs.repeated_tokens / max(inputs.tokens, 1):.0%}",
    )
    return {"history": reason}


@dataclass(frozen=True, slots=True)
class _Fit:
    """What follows from memory."""

    micro_tokens: int
    gradient_checkpointing: bool
    head_chunk_bytes: int
    reason: Text
    checkpointing_reason: Text


def _fit(config: RunConfig, inputs: PlanInputs, dtype: str) -> _Fit:
    """The first that fits: the usual micro-batch, its halves down to the longest row, then the same with gradient
    checkpointing. Where none fits, the last: the pre-flight decides then."""
    on_cpu = inputs.device == "cpu"
    usual = CPU_MICRO_TOKENS if on_cpu else GPU_MICRO_TOKENS
    head_bytes = (
        CPU_HEAD_BYTES if on_cpu else min(max(CPU_HEAD_BYTES, inputs.device_memory_bytes // 64), MAX_HEAD_BYTES)
    )
    required, checkpointing_reason = _checkpointing(config)
    if inputs.shape is None:
        tokens = usual if on_cpu else min(usual, int(inputs.device_memory_bytes / 2**30 * 512))
        tokens = max(inputs.longest, tokens)
        reason = tr(
            "at most {tokens} padded tokens at once on {device}; longest row {longest}",
            tokens=tokens,
            device=inputs.device,
            longest=inputs.longest,
        )
        return _Fit(tokens, bool(required), head_bytes, reason, checkpointing_reason)
    width = 2 if dtype == "bfloat16" else 4
    static = _static_bytes(config, inputs, inputs.shape, width) + 2.5 * head_bytes
    usable = USABLE_MEMORY_FRAC.get(inputs.device, 0.7) * inputs.device_memory_bytes
    sizes = _halves(usual, inputs.longest)
    for tokens, checkpointing in [
        (size, checkpointing) for checkpointing in ([False, True] if required is None else [required]) for size in sizes
    ]:
        needed = static + tokens * activation_bytes_per_token(
            inputs.shape, width, inputs.longest, inputs.device, checkpointing
        )
        if needed <= usable:
            break
    if checkpointing and not required:
        checkpointing_reason = tr("without it not even {tokens} tokens would fit", tokens=sizes[-1])
    reason = tr(
        "at most {tokens} padded tokens at once on {device}: {needed:.2f} GiB expected of {usable:.2f} usable "
        "({total:.2f} in all); longest row {longest}",
        tokens=tokens,
        device=inputs.device,
        needed=needed / 2**30,
        usable=usable / 2**30,
        total=inputs.device_memory_bytes / 2**30,
        longest=inputs.longest,
    )
    if needed > usable:
        reason = tr("{reason}; more than the machine has: the pre-flight decides", reason=reason)
    return _Fit(tokens, checkpointing, head_bytes, reason, checkpointing_reason)


def _checkpointing(config: RunConfig) -> tuple[bool | None, Text]:
    """Whether the settings turn gradient checkpointing on or off (None: neither), and the reason to show."""
    if config.train.gradient_checkpointing is False or config.train.disable_gradient_checkpointing:
        return False, tr("given: none")
    if config.train.gradient_checkpointing:
        return True, tr("given: gradient_checkpointing")
    return None, tr("not needed")


def _static_bytes(config: RunConfig, inputs: PlanInputs, shape: Shape, width: int) -> float:
    """Weights, gradients and optimizer state on one device. A fresh LoRA is its own reference when switched off; any
    other needs a second set of weights."""
    method = config.method
    reference = STAGES.get(method.stage).needs_reference(method)
    second_model = bool(method.ref_model) or (reference and method.finetuning_type != "lora")
    shares = inputs.processes if config.train.fsdp or config.train.deepspeed else 1
    return static_bytes(shape, config, width, second_model) / shares


def _halves(usual: int, longest: int) -> list[int]:
    """`usual` and its halves that still hold the longest row; the longest row itself when it is longer."""
    sizes = [max(usual, longest)]
    while sizes[-1] // 2 >= longest and sizes[-1] > 64:
        sizes.append(sizes[-1] // 2)
    return sizes


def _compiled(config: RunConfig, inputs: PlanInputs, total_steps: int) -> tuple[bool, Text]:
    """Whether the repeated block is compiled, and why."""
    given = config.train.torch_compile
    if given is not None:
        return given, tr("given: torch_compile={value}", value=given)
    if inputs.device != "cuda" or config.model.quantization_bit or config.train.fsdp:
        return False, tr("it pays off only on one CUDA device with unquantized weights")
    pays = total_steps >= MIN_STEPS_TO_COMPILE
    return pays, tr("{steps} steps; it pays off from {minimum} on", steps=total_steps, minimum=MIN_STEPS_TO_COMPILE)


def _dtype(config: RunConfig, device: str) -> str:
    if config.train.bf16 is not None and config.model.dtype == "auto":
        return "bfloat16" if config.train.bf16 else "float32"
    return str(dtype_of(config.model, device)).removeprefix("torch.")


def _interval(strategy: str, steps: float, total_steps: int, steps_per_epoch: int) -> int | None:
    """Steps from one save or evaluation to the next; `steps` below 1 is a fraction of all steps."""
    if strategy == "no":
        return None
    if strategy == "epoch":
        return steps_per_epoch
    return max(1, round(steps * total_steps) if steps < 1 else round(steps))


def _eval_interval(config: RunConfig, inputs: PlanInputs, total_steps: int, steps_per_epoch: int) -> int | None:
    """None without held-out rows. `eval_steps` alone means `eval_strategy: steps`."""
    if not inputs.eval_rows:
        return None
    settings = config.evaluation
    strategy = settings.eval_strategy or ("steps" if settings.eval_steps else "epoch")
    return _interval(strategy, settings.eval_steps or config.train.save_steps, total_steps, steps_per_epoch)
