"""Pre-flight: a few real steps and one save, from which follows what the whole training will take."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from sartor.base.config import RunConfig
from sartor.base.errors import RunError
from sartor.base.i18n import Text, ntr, tr
from sartor.base.rundir import RunDir
from sartor.base.types import Encoded, token_sequences
from sartor.model.batch import global_batches
from sartor.training import loop
from sartor.training.checkpoint import OPTIMIZER
from sartor.training.job import TrainingJob
from sartor.training.memory import OutOfMemory, PeakMemory, device_memory_bytes
from sartor.training.plan import Plan
from sartor.training.setup import Training, set_up

TYPICAL_BATCHES = 3
"""Timed steps on typical batches, after the one on the longest; the median counts, because the first still warms up."""
SAMPLED_BATCHES = 32
"""Global batches that are cut to count padded tokens."""
SAMPLED_EVAL_ROWS = 64
"""Held-out rows of the timed evaluation, at most."""
SMALL_ROWS, FEW_STEPS, MANY_EPOCHS = 50, 20, 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training will take, extrapolated from a few of its steps."""

    total_steps: int
    seconds: float
    """Steps, evaluations and saves together."""
    step_seconds: float
    """A typical step."""
    longest_step_seconds: float
    peak_memory_bytes: int
    device_memory_bytes: int
    checkpoint_bytes: int
    disk_bytes: int
    """The checkpoints that exist at once, one more while it is written, and the final weights."""
    free_disk_bytes: int
    save_seconds: float
    micro_divisor: int
    """Above 1: the longest batch did not fit, and micro-batches are 1/micro_divisor as large."""
    advice: tuple[Text, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(replace(self, advice=())), "advice": [advice.to_json() for advice in self.advice]}


def preflight(job: TrainingJob) -> tuple[Estimate, Plan]:
    """Try the training on this machine without changing the model; returns the estimate, and the plan, made smaller
    where it did not fit.

    The order: micro-batches are halved down to single rows; then gradient checkpointing is turned on; then it fails.
    The steps are real but for a learning rate of 0.

    Raises: OutOfMemory when not even single rows fit with gradient checkpointing; RunError when the disk has no room
    for the checkpoints.
    """
    plan = job.plan
    if plan.streaming:  # measured on a sample of the stream's rows
        estimate, sampled = preflight(replace(job, plan=replace(plan, rows=len(job.rows), streaming=False)))
        return estimate, replace(sampled, rows=plan.rows, streaming=True)
    try:
        return _measure(job)
    except OutOfMemory:
        settings = job.config.train
        disabled = settings.gradient_checkpointing is False or settings.disable_gradient_checkpointing
        if plan.gradient_checkpointing or disabled:
            raise
    reason = tr(
        "{reason}; pre-flight: without it single rows do not fit",
        reason=plan.reasons["recomputation"],
    )
    plan = replace(plan, gradient_checkpointing=True, reasons={**plan.reasons, "recomputation": reason})
    return _measure(replace(job, plan=plan))


class Measured(NamedTuple):
    """What the steps of one try took."""

    longest: tuple[float, int]
    """(seconds, padded tokens) of the step on the longest rows."""
    typical: list[tuple[float, int]]
    eval_seconds: float
    """One evaluation of all held-out rows."""
    saved: Saved
    peak_bytes: int


def _measure(job: TrainingJob) -> tuple[Estimate, Plan]:
    """One try with one plan, in a folder of the run that is removed afterwards. Raises: OutOfMemory, RunError."""
    folder = job.run / ".preflight.part"
    training = set_up(replace(job, run=RunDir(folder), callbacks=(), fingerprint={}))
    for group in training.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 0.0
    training.scheduler.base_lrs = [0.0] * len(training.optimizer.param_groups)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with PeakMemory(training.device) as peak:
            longest = _timed(training, _longest(job.rows, job.plan.global_batch))
            typical = [_timed(training, chosen) for chosen in _first_batches(job.config, job.plan)[:TYPICAL_BATCHES]]
            eval_seconds = _eval_seconds(training) if job.plan.eval_steps else 0.0
            saved = _saved(training)
    except RunError as error:
        if isinstance(error, OutOfMemory) or error.code == loop.NOT_FINITE:
            raise _before_training(error, job) from error
        raise
    else:
        return _estimate(job, training, Measured(longest, typical, eval_seconds, saved, peak.bytes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        training.optimizer.zero_grad(set_to_none=True)
        job.model.eval()


def _before_training(error: RunError, job: TrainingJob) -> RunError:
    """A step's error without the folder that is removed, and without checkpoints, of which there are none yet."""
    model = job.config.model.model_name_or_path
    if isinstance(error, OutOfMemory):
        return OutOfMemory(
            error.what, model, "Lower cutoff_len, or use LoRA, a smaller model, or a larger machine.", code=error.code
        )
    return RunError(
        "The loss or its gradient is NaN or infinite before any training.",
        model,
        "Set dtype: float32, or use another model; --no-preflight trains and names the rows.",
    )


def _longest(rows: Sequence[Encoded], size: int) -> list[int]:
    """The rows with the most tokens."""
    return sorted(range(len(rows)), key=lambda row: -sum(len(s) for s in token_sequences(rows[row])))[:size]


def _first_batches(config: RunConfig, plan: Plan) -> list[list[int]]:
    """The global batches of the first epoch."""
    seed = config.train.seed if config.train.data_seed is None else config.train.data_seed
    return global_batches(plan.rows, plan.global_batch, seed, 0)


def _timed(training: Training, chosen: list[int]) -> tuple[float, int]:
    """(seconds, padded tokens) of one step, from its event."""
    loop.step(training, chosen)
    event = next(e for e in reversed(list(training.job.run.read_events())) if e["kind"] == "step")
    return float(event["seconds"]), int(event["padded_tokens"])


def _eval_seconds(training: Training) -> float:
    """Seconds that one evaluation of all held-out rows will take, from some of them."""
    job = training.job
    sample = job.eval_rows[:SAMPLED_EVAL_ROWS]
    started = time.perf_counter()
    loop.evaluate(replace(training, job=replace(job, eval_rows=sample)))
    return (time.perf_counter() - started) * len(job.eval_rows) / len(sample)


class Saved(NamedTuple):
    """One checkpoint on the run's own disk."""

    seconds: float
    bytes: int
    weights_seconds: float
    """The part of the seconds that the model took: at the end there is no optimizer to write."""


def _saved(training: Training) -> Saved:
    started = time.perf_counter()
    path = loop.save(training)
    seconds = time.perf_counter() - started
    sizes = [(file.name, file.stat().st_size) for file in path.rglob("*") if file.is_file()]
    total = sum(size for _, size in sizes)
    weights = sum(size for name, size in sizes if name != OPTIMIZER)
    return Saved(seconds, total, seconds * weights / total)


def _estimate(job: TrainingJob, training: Training, measured: Measured) -> tuple[Estimate, Plan]:
    """Extrapolate to the whole training. Raises: RunError when the disk has no room for the checkpoints."""
    divisor, saved = training.progress.micro_divisor, measured.saved
    plan = _made_smaller(job.plan, divisor) if divisor > 1 else job.plan
    per_token = statistics.median(seconds / max(tokens, 1) for seconds, tokens in measured.typical)
    step_seconds = per_token * _mean_tokens(training, plan)
    evaluations = math.ceil(plan.total_steps / plan.eval_steps) if plan.eval_steps else 0
    saves = (plan.total_steps - 1) // plan.save_steps if plan.save_steps else 0
    disk, free = _disk_bytes(job, saves, saved.bytes), shutil.disk_usage(job.run.path).free
    if disk > free:
        raise RunError(
            "The checkpoints need {needed:.1f} GiB, and the disk has {free:.1f} GiB free.",
            str(job.run.path.parent),
            "Set save_total_limit, save_only_model or another output_dir.",
            needed=disk / 2**30,
            free=free / 2**30,
        )
    seconds = step_seconds * plan.total_steps + measured.eval_seconds * evaluations
    seconds += saved.seconds * saves + saved.weights_seconds
    estimate = Estimate(
        total_steps=plan.total_steps,
        seconds=round(seconds, 2),
        step_seconds=round(step_seconds, 4),
        longest_step_seconds=round(measured.longest[0], 4),
        peak_memory_bytes=measured.peak_bytes,
        device_memory_bytes=device_memory_bytes(training.device),
        checkpoint_bytes=saved.bytes,
        disk_bytes=disk,
        free_disk_bytes=free,
        save_seconds=round(saved.seconds, 4),
        micro_divisor=divisor,
        advice=advise(plan, bool(job.eval_rows)),
    )
    return estimate, plan


def _made_smaller(plan: Plan, divisor: int) -> Plan:
    """The plan with the micro-batches that fit into memory."""
    limits = plan.limits(divisor=divisor)
    reason = tr(
        "{reason}; pre-flight ran out of memory: 1/{divisor} of that",
        reason=plan.reasons["micro_tokens"],
        divisor=divisor,
    )
    return replace(
        plan,
        micro_batch_size=limits.max_rows,
        micro_tokens=limits.max_tokens,
        reasons={**plan.reasons, "micro_tokens": reason},
    )


def _disk_bytes(job: TrainingJob, saves: int, checkpoint_bytes: int) -> int:
    """Checkpoints kept, one more while it is written, and the final weights (at most a checkpoint's size)."""
    kept = min(saves, job.config.train.save_total_limit or saves)
    return checkpoint_bytes * (kept + (1 if saves else 0) + 1)


def _mean_tokens(training: Training, plan: Plan) -> float:
    """Padded tokens of a typical step, from the first global batches as the plan cuts them."""
    job = training.job
    counts: list[int] = []
    for chosen in _first_batches(job.config, plan)[:SAMPLED_BATCHES]:
        batches = training.stage.batches(job.rows, chosen, plan.limits(), job.pad_id)
        counts.append(sum(batch.ids_BT.numel() for batch in batches))
    return sum(counts) / len(counts)


def advise(plan: Plan, held_out: bool) -> tuple[Text, ...]:
    """What to consider before training on so few rows, for so few steps or so many epochs, or with none held out."""
    advice = []
    if plan.rows < SMALL_ROWS:
        advice.append(
            ntr(
                "{count} row is few: the verdict can prove large differences only. More rows help most.",
                "{count} rows are few: the verdict can prove large differences only. More rows help most.",
                count=plan.rows,
            )
        )
    if plan.total_steps < FEW_STEPS:
        advice.append(
            ntr(
                "{count} step changes little: use more epochs, or a smaller batch "
                "(per_device_train_batch_size × gradient_accumulation_steps is {batch}).",
                "{count} steps change little: use more epochs, or a smaller batch "
                "(per_device_train_batch_size × gradient_accumulation_steps is {batch}).",
                count=plan.total_steps,
                batch=plan.global_batch,
            )
        )
    if plan.total_steps / plan.steps_per_epoch > MANY_EPOCHS:
        advice.append(
            tr(
                "Each row is seen {epochs:.0f} times: expect the model to memorize it; watch the held-out loss.",
                epochs=plan.total_steps / plan.steps_per_epoch,
            )
        )
    if not held_out:
        advice.append(tr("No rows are held out, so the result cannot be verified. Set val_size=0.1."))
    return tuple(advice)


def prediction_errors(estimate: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, float]:
    """How far the estimate was off: predicted / measured − 1, for time and memory."""
    pairs = {"seconds": results["total_seconds"], "peak_memory_bytes": results["peak_memory_bytes"]}
    return {name: round(estimate[name] / measured - 1, 4) for name, measured in pairs.items() if measured}
