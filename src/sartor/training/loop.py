"""The training loop, top to bottom: global batch → micro-batches → one optimizer step → events.

A *global batch* is the rows of one optimizer step, over all processes. It is cut into *micro-batches*, which is what
fits into memory at once; their gradients are summed. The plan has decided the sizes of both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sartor.base.errors import Interrupted, RunError
from sartor.base.i18n import tr
from sartor.base.process import ProcessIdentity, handle_signals
from sartor.base.types import token_sequences
from sartor.model.batch import Batch, global_batches
from sartor.training import checkpoint, training_log
from sartor.training.checkpoint import Progress
from sartor.training.distributed import deepspeed, processes
from sartor.training.job import TrainingJob
from sartor.training.memory import OutOfMemory, PeakMemory, device_memory_bytes, is_out_of_memory, memory_bytes
from sartor.training.optimizer import is_finite, restore_scheduler, scheduler_state
from sartor.training.setup import Training, set_up
from sartor.training.stages import BatchLimits

MAX_SKIPPED_STEPS = 3
NOT_FINITE = "not-finite"
"""The code of the error that ends a run after so many."""
"""This many steps with a NaN or infinite loss or gradient end the run."""
EVAL_BATCHES_SORTED = 8
"""Evaluation sorts this many batches' rows by length at a time: little padding, without every row as a tensor."""


def train(job: TrainingJob) -> dict[str, Any]:
    """Train as planned and leave everything in the run's folder; returns the contents of train_results.json (an empty
    dict in all processes but the first).

    Raises: Interrupted after a signal's checkpoint; RunError after too many non-finite steps, on a full disk, or when
    a checkpoint was trained on different data.
    """
    if job.resume is not None and not job.allow_changed:
        checkpoint.check_fingerprint(job.resume, job.fingerprint)
    training = set_up(job)
    if training.is_main_process:
        if job.create:
            job.create()
        job.run.make()
        checkpoint.remove_partial(job.run)
    if training.not_compiled:
        training.warn(tr("torch_compile: {reason}; training continues without it.", reason=training.not_compiled))
    if job.resume is not None:
        _restore(training, job.resume)
    if training.is_main_process:
        training_log.begin(job.run, training.progress.step)
    training.event(
        "started",
        pid=os.getpid(),
        process=ProcessIdentity.of().to_json(),
        total_steps=job.plan.total_steps,
        step=training.progress.step,
        device=training.device.type,
        device_memory_bytes=device_memory_bytes(training.device),
    )
    started, peak = time.perf_counter(), PeakMemory(training.device)
    try:
        _run(training, peak)
    except Interrupted as stop:
        training.event("interrupted", signal=stop.exit_code - 128, step=training.progress.step)
        raise
    except BaseException as error:
        training.event("failed", error=f"{type(error).__name__}: {error}", step=training.progress.step)
        raise
    if not training.is_main_process:
        return {}
    results = training_log.write_results(
        job.run,
        job.plan,
        training.progress,
        job.config.train.plot_loss,
        peak_memory_bytes=peak.bytes,
        total_seconds=round(time.perf_counter() - started, 3),
    )
    training.event("finished", **results)
    return results


def _run(training: Training, peak: PeakMemory) -> None:
    """All steps, then the final weights."""
    signals: list[int] = []
    with handle_signals(signals.append), peak:
        _run_steps(training, signals)
    _load_best(training)
    with _full_weights(training):
        if training.is_main_process:
            checkpoint.write_final(training.job.run, training.job.write_model)
    processes.barrier()


def _restore(training: Training, folder: Path) -> None:
    """Put optimizer, schedule, random states and progress back from a checkpoint; `set_up` has loaded the weights."""
    state = checkpoint.read_state(folder)
    checkpoint.load_optimizer(folder, training.optimizer)
    restore_scheduler(training.scheduler, state["scheduler"])
    training.progress = replace(Progress(**state["progress"]), skipped_steps=0)
    training.event("resumed", step=training.progress.step, path=folder.name)


def _run_steps(training: Training, signals: list[int]) -> None:
    """The order of the rows depends on (seed, epoch) alone, so a resumed run continues where it stopped."""
    plan, settings = training.job.plan, training.job.config.train
    seed = settings.seed if settings.data_seed is None else settings.data_seed
    while training.progress.step < plan.total_steps:
        epoch, first = divmod(training.progress.step, plan.steps_per_epoch)
        for chosen in global_batches(plan.rows, plan.global_batch, seed, epoch, in_order=plan.streaming)[first:]:
            step(training, chosen)
            if _after_step(training, signals):
                return


def step(training: Training, chosen: list[int]) -> None:
    """One optimizer step on the rows `chosen`: gradients, clipping, update, events."""
    started = time.perf_counter()
    loss_sum, padded_tokens = _gradients(training, chosen)
    loss = float(training.accelerator.reduce(loss_sum))
    norm = _clip(training) if training.engine is None else 0.0  # DeepSpeed clips in its step
    rate = float(training.scheduler.get_last_lr()[0])
    skipped = not is_finite(loss, norm)
    if skipped:
        _skip_step(training, chosen, loss, norm)
        loss = 0.0
    else:
        if training.engine:
            norm = training.engine.step()
        else:
            training.optimizer.step()
        training.scheduler.step()
    training.optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    sequences = [sequence for row in chosen for sequence in token_sequences(training.job.rows[row])]
    tokens = sum(len(sequence) for sequence in sequences)
    label_tokens = sum(sequence.label_tokens for sequence in sequences)
    progress = training.progress
    training.progress = replace(
        progress,
        step=progress.step + 1,
        tokens=progress.tokens + tokens,
        label_tokens=progress.label_tokens + label_tokens,
        loss_sum=progress.loss_sum + loss,
        seconds=progress.seconds + seconds,
        skipped_steps=progress.skipped_steps + skipped,
    )
    _log_step(
        training,
        loss=loss,
        learning_rate=rate,
        grad_norm=norm,
        tokens=tokens,
        label_tokens=label_tokens,
        padded_tokens=padded_tokens,
        seconds=round(seconds, 4),
    )
    if training.progress.skipped_steps >= MAX_SKIPPED_STEPS:
        raise RunError(
            "{count} steps had a NaN or infinite loss or gradient.",
            str(training.job.run.path),
            "Look at the rows named in events.jsonl (skipped_step); lower the learning rate. Checkpoints are kept.",
            code=NOT_FINITE,
            count=MAX_SKIPPED_STEPS,
        )


def _log_step(training: Training, **values: float) -> None:
    """The event of a step, and every `logging_steps` a line of trainer_log.jsonl."""
    plan, step = training.job.plan, training.progress.step
    training.event(
        "step",
        step=step,
        epoch=round(step / plan.steps_per_epoch, 4),
        **values,
        memory_bytes=memory_bytes(training.device),
    )
    if step % training.job.config.train.logging_steps == 0 and training.is_main_process:
        training_log.log_step(training.job.run, plan, training.progress, values["loss"], values["learning_rate"])


def _clip(training: Training) -> float:
    """Sum the gradients over the processes and clip them; returns their norm before that."""
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    processes.sum_gradients(parameters)
    limit = training.job.config.train.max_grad_norm
    return float(processes.full_tensor(torch.nn.utils.clip_grad_norm_(parameters, limit if limit else float("inf"))))


def _gradients(training: Training, chosen: list[int]) -> tuple[torch.Tensor, int]:
    """Gradients of one global batch; out of memory, the micro-batches are halved and the step starts over.

    `micro_divisor` stays for the rest of the run. The random states go back to those before the step, so that dropout
    does not depend on how far the failed try came.

    Raises: OutOfMemory when not even one row at a time fits.
    """
    step, random = training.progress.step + 1, checkpoint.random_states()
    replayed = training.job.replay.get(step, 1)
    if training.progress.micro_divisor < replayed:
        training.progress = replace(training.progress, micro_divisor=replayed)
    while True:
        try:
            return _accumulate(training, chosen)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or training.accelerator.num_processes > 1:
                raise  # other processes would wait forever for this one
            reason = str(error).splitlines()[0]
        divisor = 2 * training.progress.micro_divisor
        if divisor > training.job.plan.micro_batch_size:
            raise OutOfMemory(
                "Out of memory with one row at a time: {reason}",
                str(training.job.run.path),
                "Lower cutoff_len, or use LoRA, a smaller model, or a larger machine. Checkpoints are kept.",
                reason=reason,
            )
        training.progress = replace(training.progress, micro_divisor=divisor)
        training.optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        checkpoint.restore_random(random)
        training.event("oom", step=step, micro_divisor=divisor, reason=reason)


def _accumulate(training: Training, chosen: list[int]) -> tuple[torch.Tensor, int]:
    """(this process's share of the loss, its padded tokens), with the gradients left in the model.

    The loss of a step is a sum divided by the weight (for sft: the label tokens) of the whole global batch. A mean of
    the micro-batches' means would count a token more in a micro-batch with few of them; this way the cut changes
    nothing: batch size 1 × 4 accumulated equals 4 × 1, packed equals padded, two processes equal one.

    Micro-batches are cut by length, so that rows of about the same length share one and little is padded.
    """
    job, stage, world_size = training.job, training.stage, training.accelerator.num_processes
    weight = sum(stage.weight(job.rows[row]) for row in chosen)
    limits = job.plan.limits(divisor=training.progress.micro_divisor)
    kl = _kl(training, chosen, limits)
    own_rows = chosen[training.accelerator.process_index :: world_size]
    batches = stage.batches(job.rows, own_rows, limits, job.pad_id)
    real = len(batches)
    batches = [*batches, *_spare_batches(training, chosen, limits, real)]
    loss_sum = torch.zeros((), device=training.device)
    padded_tokens = 0
    for number, batch in enumerate(batches):
        batch = replace(batch, kl=kl).to(training.device)
        loss = training.objective(batch) / weight * (number < real)
        if training.engine:
            training.engine.backward(loss, last=number == len(batches) - 1)
        else:  # FSDP2 averages over the processes, and the sum is wanted
            (loss * world_size if training.equal_micro_batches else loss).backward()
        loss_sum += loss.detach()
        padded_tokens += batch.ids_BT.numel()
    return loss_sum, padded_tokens


def _spare_batches(training: Training, chosen: list[int], limits: BatchLimits, count: int) -> list[Batch]:
    """Batches of weight 0 for a process with fewer micro-batches than another one: every process must pass through the
    sharded layers equally often."""
    if not training.equal_micro_batches:
        return []
    missing = processes.all_reduce_max(count, training.device) - count
    if not missing:
        return []
    return training.stage.batches(training.job.rows, chosen[:1], limits, training.job.pad_id)[:1] * missing


def _kl(training: Training, chosen: list[int], limits: BatchLimits) -> torch.Tensor | None:
    """The stage's KL estimate over the whole global batch and all processes, ≥ 0 (nats); None where it has none."""
    accelerator, job = training.accelerator, training.job
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    batches = training.stage.kl_batches(job.rows, chosen, limits, job.pad_id, share)
    if batches is None:
        return None
    total = torch.zeros((), device=training.device)
    for batch in batches:
        total += training.module.log_ratios(batch.to(training.device))
    summed: torch.Tensor = accelerator.reduce(total)
    return (summed / len(chosen)).clamp(min=0)


def _skip_step(training: Training, chosen: list[int], loss: float, norm: float) -> None:
    origins = [training.job.rows[row].origin for row in chosen]
    training.event(
        "skipped_step",
        step=training.progress.step + 1,
        loss=str(loss),
        grad_norm=str(norm),
        rows=[origin.id for origin in origins if origin is not None],
    )


def _after_step(training: Training, signals: list[int]) -> bool:
    """Evaluate, sample, save; True when the training is over. Raises: Interrupted after saving, on a signal."""
    plan, settings, step = training.job.plan, training.job.config.train, training.progress.step
    last = step >= plan.total_steps
    is_best = False
    if plan.eval_steps and (step % plan.eval_steps == 0 or last):
        evaluate(training)
        is_best = settings.load_best_model_at_end and training.progress.best_step == step and not last
    if training.job.sample is not None and settings.sample_steps and step % settings.sample_steps == 0:
        _sample(training)
    # A signal may have reached one process only: all agree on it here.
    signal = processes.all_reduce_max(signals[0] if signals else 0, training.device)
    if signal:
        path = save(training)
        raise Interrupted(
            signal,
            "Stopped by a signal after step {step} of {total}; nothing is lost.",
            str(path),
            "Run the same command again to resume.",
            step=step,
            total=plan.total_steps,
        )
    if is_best or (plan.save_steps and step % plan.save_steps == 0 and not last):
        save(training)
    patience = settings.early_stopping_steps
    return last or bool(patience and training.progress.evals_without_improvement >= patience)


def _sample(training: Training) -> None:
    """Answer the fixed prompts with the current weights; the training's random states are left as they are."""
    assert training.job.sample is not None
    training.module.eval()
    with torch.random.fork_rng():
        for prompt, text in training.job.sample():
            training.event("sample", step=training.progress.step, prompt=prompt, text=text)
    training.module.train()


def _load_best(training: Training) -> None:
    """With load_best_model_at_end, put the weights with the lowest held-out loss back, unless they are the last."""
    best = training.progress.best_step
    if not training.job.config.train.load_best_model_at_end or best in (None, training.progress.step):
        return
    folder = training.job.run.path / f"checkpoint-{best}"
    if problem := checkpoint.verify(folder):
        training.warn(tr("The best checkpoint cannot be used ({problem}); the last weights are kept.", problem=problem))
        return
    checkpoint.load_trained_weights(folder, training.module.model)
    training.event("best", step=best, eval_loss=training.progress.best_loss, path=folder.name)


def _full_weights(training: Training) -> AbstractContextManager[None]:
    """While the block runs, the first process's model holds its weights unsharded, for saving."""
    state = deepspeed.full_state(training.accelerator, training.objective) if training.engine else None
    return processes.full_weights(training.module.model, state)


def save(training: Training) -> Path:
    """Write a checkpoint: by the first process, or of a sharded model each process its own shards."""
    job, settings = training.job, training.job.config.train
    path = job.run / f"checkpoint-{training.progress.step}"
    model = training.module.model
    record: Mapping[str, Any] = {
        "scheduler_state": scheduler_state(training.scheduler),
        "fingerprint": job.fingerprint,
    }
    if processes.is_sharded(model.parameters()):
        optimizer = None if settings.save_only_model else training.optimizer
        checkpoint.save_sharded(job.run, training.progress, model=model, optimizer=optimizer, **record)
    else:
        weights_only = settings.save_only_model or training.engine  # DeepSpeed would pickle its state
        with _full_weights(training):
            if training.is_main_process:
                state = None if weights_only else checkpoint.flatten_optimizer(training.optimizer)
                checkpoint.save(job.run, training.progress, write_model=job.write_model, optimizer=state, **record)
    if training.is_main_process:
        training.event("checkpoint", step=training.progress.step, path=path.name)
        checkpoint.prune(job.run, settings.save_total_limit, training.progress.best_step)
    processes.barrier()
    return path


@torch.no_grad()
def evaluate(training: Training) -> None:
    """Held-out loss over all held-out rows, a sum divided by their weight as in training; keeps track of the best.

    Every process evaluates all rows, at most `per_device_eval_batch_size` of them in a batch.
    """
    job, stage, objective = training.job, training.stage, training.module
    rows, batch_size = job.eval_rows, job.config.evaluation.per_device_eval_batch_size
    limits = job.plan.limits(max_rows=batch_size)
    objective.eval()
    loss_sum = 0.0
    sorted_at_once = EVAL_BATCHES_SORTED * batch_size
    for start in range(0, len(rows), sorted_at_once):
        chosen = range(start, min(start + sorted_at_once, len(rows)))
        for batch in stage.batches(rows, chosen, limits, job.pad_id):
            loss_sum += float(objective(batch.to(training.device)))
    objective.train()
    loss, progress = loss_sum / max(sum(stage.weight(row) for row in rows), 1), training.progress
    better = progress.best_loss is None or loss < progress.best_loss
    training.progress = replace(
        progress,
        best_loss=loss if better else progress.best_loss,
        best_step=progress.step if better else progress.best_step,
        evals_without_improvement=0 if better else progress.evals_without_improvement + 1,
    )
    epoch = round(progress.step / job.plan.steps_per_epoch, 4)
    training.event("eval", step=progress.step, epoch=epoch, eval_loss=loss)
