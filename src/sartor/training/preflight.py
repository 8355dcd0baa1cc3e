"""Pre-flight: a few real steps and one save, then what the whole training will take; prints nothing."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from sartor.base.config import RunConfig
from sartor.base.errors import RunError
from sartor.base.rundir import RunDir
from sartor.base.types import Encoded
from sartor.model.batch import global_batches
from sartor.training import loop
from sartor.training.checkpoint import OPTIMIZER
from sartor.training.peak_memory import OutOfMemory, PeakMemory
from sartor.training.plan import Plan, sequences

TYPICAL_BATCHES = 3
"""Timed steps on usual batches, after the one on the longest; their median counts, because the first still warms up."""
SAMPLED_BATCHES = 32
"""Global batches that are cut to count padded tokens."""
SMALL_ROWS, FEW_STEPS, MANY_EPOCHS = 50, 20, 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training will take, from what a few of its steps took."""

    total_steps: int
    seconds: float
    """Steps, evaluations and saves together."""
    step_seconds: float
    """A usual step."""
    longest_step_seconds: float
    peak_memory_bytes: int
    device_memory_bytes: int
    checkpoint_bytes: int
    disk_bytes: int
    """Checkpoints that stand at once, one more while it is written, and the final weights."""
    free_disk_bytes: int
    save_seconds: float
    micro_divisor: int
    """Above 1: the longest batch did not fit, and micro-batches were cut by this."""
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def preflight(
    run: RunDir,
    config: RunConfig,
    plan: Plan,
    model: Any,
    rows: Sequence[Encoded],
    eval_rows: Sequence[Encoded],
    *,
    pad_id: int,
    write_model: Callable[[Path], None],
    reference: Any = None,
) -> tuple[Estimate, Plan]:
    """Try the training on this machine without changing the model; the plan comes back, stepped down where it must.

    The ladder: micro-batches halved down to single rows, then recomputation on, then refusal. The steps are real but
    for a learning rate of 0. Raises: RunError when not even recomputed single rows fit into memory, or the disk has no
    room for the checkpoints.
    """
    words = (model, rows, eval_rows, pad_id, write_model, reference)
    if plan.streaming:  # a sample of its rows, shuffled
        found, sampled = preflight(
            run,
            config,
            replace(plan, rows=len(rows), streaming=False),
            *words[:3],
            pad_id=pad_id,
            write_model=write_model,
            reference=reference,
        )
        return found, replace(sampled, rows=plan.rows, streaming=True)
    try:
        return _measure(run, config, plan, *words)
    except OutOfMemory:
        refused = config.train.gradient_checkpointing is False or config.train.disable_gradient_checkpointing
        if plan.gradient_checkpointing or refused:
            raise
    why = f"{plan.reasons['recomputation']}; pre-flight: without it single rows do not fit"
    plan = replace(plan, gradient_checkpointing=True, reasons={**plan.reasons, "recomputation": why})
    return _measure(run, config, plan, *words)


def _measure(
    run: RunDir,
    config: RunConfig,
    plan: Plan,
    model: Any,
    rows: Sequence[Encoded],
    eval_rows: Sequence[Encoded],
    pad_id: int,
    write_model: Callable[[Path], None],
    reference: Any,
) -> tuple[Estimate, Plan]:
    """One try with one plan. Raises: NoRoom, RunError."""
    folder = run / ".preflight.part"
    training = loop.set_up(RunDir(folder), config, plan, model, rows, eval_rows, pad_id, write_model, {}, (), reference)
    for group in training.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 0.0
    training.scheduler.base_lrs = [0.0] * len(training.optimizer.param_groups)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with PeakMemory(training.accelerator.device) as peak:
            longest = _timed(training, _longest(rows, plan.global_batch))
            usual = [_timed(training, chosen) for chosen in _typical(config, plan)]
            eval_seconds = _evaluation(training) if plan.eval_steps else 0.0
            saved = _saved(training)
        return _estimate(run, config, training, longest, usual, eval_seconds, saved, peak.bytes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        training.optimizer.zero_grad(set_to_none=True)
        model.eval()


def _longest(rows: Sequence[Encoded], size: int) -> list[int]:
    return sorted(range(len(rows)), key=lambda r: -sum(len(part) for part in sequences(rows[r])))[:size]


def _typical(config: RunConfig, plan: Plan) -> list[list[int]]:
    seed = config.train.seed if config.train.data_seed is None else config.train.data_seed
    return global_batches(plan.rows, plan.global_batch, seed, 0)[:TYPICAL_BATCHES]


def _timed(training: loop.Training, chosen: list[int]) -> tuple[float, int]:
    """(seconds, padded tokens) of one step."""
    loop.step(training, chosen)
    last = list(training.run.read_events())[-1]
    if last["kind"] != "step":
        last = next(e for e in reversed(list(training.run.read_events())) if e["kind"] == "step")
    return float(last["seconds"]), int(last["padded_tokens"])


def _evaluation(training: loop.Training) -> float:
    """Seconds that one evaluation over all held-out rows will take, from at most 64 of them."""
    some = training.eval_rows[:64]
    started = time.perf_counter()
    loop.evaluate(replace(training, eval_rows=some))
    return (time.perf_counter() - started) * len(training.eval_rows) / len(some)


class Saved(NamedTuple):
    """One checkpoint on the run's own disk."""

    seconds: float
    bytes: int
    weights_seconds: float
    """The share of the seconds that the model took, as at the end, when there is no optimizer to write."""


def _saved(training: loop.Training) -> Saved:
    started = time.perf_counter()
    path = loop.save(training)
    seconds = time.perf_counter() - started
    sizes = [(file.name, file.stat().st_size) for file in path.rglob("*") if file.is_file()]
    size = sum(bytes_ for _, bytes_ in sizes)
    weights = sum(bytes_ for name, bytes_ in sizes if name != OPTIMIZER)
    return Saved(seconds, size, seconds * weights / size)


def _estimate(
    run: RunDir,
    config: RunConfig,
    training: loop.Training,
    longest: tuple[float, int],
    usual: list[tuple[float, int]],
    eval_seconds: float,
    saved: Saved,
    peak: int,
) -> tuple[Estimate, Plan]:
    plan, divisor = training.plan, training.progress.micro_divisor
    if divisor > 1:
        why = f"{plan.reasons['micro_tokens']}; pre-flight ran out of memory: 1/{divisor} of that"
        plan = replace(
            plan,
            micro_batch_size=max(1, plan.micro_batch_size // divisor),
            micro_tokens=max(1, plan.micro_tokens // divisor),
            reasons={**plan.reasons, "micro_tokens": why},
        )
    per_token = statistics.median(seconds / max(tokens, 1) for seconds, tokens in usual)
    step_seconds = per_token * _mean_tokens(training, plan)
    evaluations = math.ceil(plan.total_steps / plan.eval_steps) if plan.eval_steps else 0
    saves = (plan.total_steps - 1) // plan.save_steps if plan.save_steps else 0
    kept = min(saves, config.train.save_total_limit or saves)
    disk = saved.bytes * (kept + (1 if saves else 0) + 1)
    free = shutil.disk_usage(run.path).free
    if disk > free:
        raise RunError(
            f"The checkpoints need {disk / 2**30:.1f} GiB; the disk has {free / 2**30:.1f}.",
            str(run.path),
            "Set save_total_limit, save_only_model or another output_dir.",
        )
    device = training.accelerator.device
    total = (
        torch.cuda.get_device_properties(device).total_memory
        if device.type == "cuda"
        else (psutil.virtual_memory().total)
    )
    seconds = step_seconds * plan.total_steps + eval_seconds * evaluations
    seconds += saved.seconds * saves + saved.weights_seconds
    return Estimate(
        plan.total_steps,
        round(seconds, 2),
        round(step_seconds, 4),
        round(longest[0], 4),
        peak,
        total,
        saved.bytes,
        disk,
        free,
        round(saved.seconds, 4),
        divisor,
        advise(config, plan, bool(training.eval_rows)),
    ), plan


def _mean_tokens(training: loop.Training, plan: Plan) -> float:
    """Padded tokens of a usual step, from the first batches of the first epoch as the plan cuts them."""
    counts: list[int] = []
    seed = training.config.train.seed if training.config.train.data_seed is None else training.config.train.data_seed
    for chosen in global_batches(plan.rows, plan.global_batch, seed, 0)[:SAMPLED_BATCHES]:
        cut = training.stage.batches(training.rows, chosen, plan, training.pad_id)
        counts.append(sum(batch.ids_BT.numel() for batch in cut))
    return sum(counts) / len(counts)


def advise(config: RunConfig, plan: Plan, held_out: bool) -> tuple[str, ...]:
    """What a person with these rows should think of before the training starts."""
    advice = []
    if plan.rows < SMALL_ROWS:
        advice.append(f"{plan.rows} rows are few: the verdict can prove large differences only. More rows help most.")
    if plan.total_steps < FEW_STEPS:
        advice.append(
            f"{plan.total_steps} steps change little: use more epochs, or a smaller batch "
            f"(per_device_train_batch_size × gradient_accumulation_steps is {plan.global_batch})."
        )
    if plan.total_steps / plan.steps_per_epoch > MANY_EPOCHS:
        advice.append(
            f"Each row is seen {plan.total_steps / plan.steps_per_epoch:.0f} times: expect it to be learned "
            "by heart; watch the held-out loss."
        )
    if not held_out:
        advice.append("No rows are held out: nothing will prove the fit. Write val_size=0.1.")
    return tuple(advice)


def prediction_errors(estimate: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, float]:
    """How far the estimate was off: predicted / happened − 1, for time and memory."""
    pairs = {"seconds": results["total_seconds"], "peak_memory_bytes": results["peak_memory_bytes"]}
    return {name: round(estimate[name] / happened - 1, 4) for name, happened in pairs.items() if happened}
