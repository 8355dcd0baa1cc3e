"""The training loop, top to bottom: global batch → micro-batches → one step → events; it decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch

from sartor.base import registry
from sartor.base.config import RunConfig
from sartor.base.errors import Interrupted, RunError
from sartor.base.process import handle_signals
from sartor.base.rundir import RunDir
from sartor.base.types import Encoded
from sartor.model import kernels
from sartor.model.batch import global_batches
from sartor.model.compile import compile_blocks
from sartor.training import checkpoint, training_log
from sartor.training.checkpoint import Progress
from sartor.training.distributed import deepspeed, processes
from sartor.training.optimizer import is_finite, make_optimizer, make_scheduler, restore_scheduler, scheduler_state
from sartor.training.peak_memory import OutOfMemory, PeakMemory, is_out_of_memory
from sartor.training.plan import Plan, sequences

MAX_SKIPPED_STEPS = 3
"""So many steps with a non-finite loss or gradient end the run."""


class Callback(Protocol):
    """Hears every event as it is appended to events.jsonl."""

    def on_event(self, event: Mapping[str, Any]) -> None: ...


@dataclass(slots=True)
class Training:
    """All that a training holds; the functions below move it forward."""

    run: RunDir
    config: RunConfig
    plan: Plan
    objective: Any
    stage: Any
    rows: Sequence[Encoded]
    eval_rows: Sequence[Encoded]
    optimizer: Any
    scheduler: Any
    accelerator: Any
    pad_id: int
    write_model: Callable[[Path], None]
    fingerprint: Mapping[str, str]
    callbacks: Sequence[Callback]
    progress: Progress
    sample: Callable[[], Sequence[tuple[str, str]]] | None = None
    replay: Mapping[int, int] = field(default_factory=dict)
    engine: deepspeed.Engine | None = None
    """DeepSpeed's, where it takes the steps."""

    @property
    def equal_micro_batches(self) -> bool:
        """Whether all processes must run equally many micro-batches: sharded layers meet in each."""
        return self.accelerator.num_processes > 1 and bool(self.config.train.fsdp or self.engine)

    def event(self, kind: str, **values: Any) -> None:
        if not self.accelerator.is_main_process:
            return
        event = self.run.event(kind, **values)
        for callback in self.callbacks:
            callback.on_event(event)


def train(
    run: RunDir,
    config: RunConfig,
    plan: Plan,
    model: Any,
    rows: Sequence[Encoded],
    eval_rows: Sequence[Encoded],
    *,
    pad_id: int,
    write_model: Callable[[Path], None],
    callbacks: Sequence[Callback] = (),
    fingerprint: Mapping[str, str] | None = None,
    resume: Path | None = None,
    allow_changed: bool = False,
    reference: Any = None,
    sample: Callable[[], Sequence[tuple[str, str]]] | None = None,
    replay: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """Train `model` on `rows` as planned and leave everything in the run's folder; returns train_results.

    `write_model(folder)` writes weights, tokenizer and template, for checkpoints and at the end. `resume` is a
    verified checkpoint; `reference` is the model that preference losses compare with (none: `model` as it begins);
    `sample` answers the fixed prompts: (prompt, answer) each; `replay` holds step → divisor of the micro-batches
    where an earlier run ran out of memory.

    Raises: Interrupted after a signal's checkpoint; RunError after too many non-finite steps, on a full disk, or when
    a checkpoint belongs to other data.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    if resume is not None:
        _check_same(resume, fingerprint or {}, allow_changed)
    training = set_up(
        run, config, plan, model, rows, eval_rows, pad_id, write_model, fingerprint or {}, callbacks, reference, resume
    )
    training.sample, training.replay = sample, dict(replay or {})
    if training.accelerator.is_main_process:
        checkpoint.remove_partial(run)
    if resume is not None:
        _restore(training, resume)
    signals: list[int] = []
    if training.accelerator.is_main_process:
        training_log.begin(training.run, training.progress.step)
    device = training.accelerator.device
    training.event(
        "started",
        pid=psutil.Process().pid,
        total_steps=plan.total_steps,
        step=training.progress.step,
        device=device.type,
        device_memory_bytes=device_memory_bytes(device),
    )
    begun = time.perf_counter()
    peak = PeakMemory(training.accelerator.device)
    try:
        with handle_signals(signals.append), peak:
            _run_steps(training, signals)
        _load_best(training)
        with _full_weights(training):
            if training.accelerator.is_main_process:
                checkpoint.write_final(run, write_model)
        processes.barrier()
    except Interrupted as stop:
        training.event("interrupted", signal=stop.exit_code - 128, step=training.progress.step)
        raise
    except BaseException as error:
        training.event("failed", error=f"{type(error).__name__}: {error}", step=training.progress.step)
        raise
    if not training.accelerator.is_main_process:
        return {}
    results = training_log.write_results(
        run,
        plan,
        training.progress,
        config.train.plot_loss,
        peak_memory_bytes=peak.bytes,
        total_seconds=round(time.perf_counter() - begun, 3),
    )
    training.event("finished", **results)
    return results


def set_up(
    run: RunDir,
    config: RunConfig,
    plan: Plan,
    model: Any,
    rows: Sequence[Encoded],
    eval_rows: Sequence[Encoded],
    pad_id: int,
    write_model: Callable[[Path], None],
    fingerprint: Mapping[str, str],
    callbacks: Sequence[Callback],
    reference: Any,
    resume: Path | None = None,
) -> Training:
    from accelerate.utils import set_seed

    set_seed(config.train.seed)
    if config.train.deepspeed and resume is not None:
        raise RunError("A DeepSpeed run cannot resume.", str(resume), "Begin anew with --fresh, or use fsdp: true.")
    accelerator = _accelerator(config, plan, next(p for p in model.parameters() if p.requires_grad).dtype)
    stage = registry.plugin("sartor.training.stages", config.method.stage)
    model.train()
    if plan.gradient_checkpointing:
        # transformers 5.23 renamed it; both recompute without reentrance by default
        (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)()
    kernels.CHUNK_BYTES = plan.head_chunk_bytes
    objective = stage.Objective(model, config.method, reference)  # before the weights of a checkpoint: its reference
    if resume is not None:
        checkpoint.load_trained_weights(resume, model)
    if config.train.fsdp:
        processes.shard(objective, model)
    if not config.train.deepspeed:
        objective = accelerator.prepare_model(objective, evaluation_mode=True)  # no DDP around it: see sum_gradients
    not_compiled = compile_blocks(model, accelerator.device) if plan.compiled else None
    optimizer = make_optimizer(model, config.train, lora_lr_ratio=config.method.loraplus_lr_ratio)
    scheduler = make_scheduler(optimizer, config.train, plan)
    engine = None
    if config.train.deepspeed:
        objective.config = model.config  # accelerate sizes its buckets by it
        objective, _ = accelerator.prepare(objective, optimizer)
        engine = deepspeed.Engine(objective)
    training = Training(
        run,
        config,
        plan,
        objective,
        stage,
        rows,
        eval_rows,
        optimizer,
        scheduler,
        accelerator,
        pad_id,
        write_model,
        fingerprint,
        callbacks,
        Progress(),
        engine=engine,
    )
    if not_compiled:
        run.path.mkdir(parents=True, exist_ok=True)
        training.event("warning", text=f"torch_compile: {not_compiled}; training goes on without it.")
    return training


def _accelerator(config: RunConfig, plan: Plan, moving: torch.dtype) -> Any:
    """Bfloat16 arithmetic by autocast where what moves is float32; DeepSpeed has its own."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # one process may train twice, in two number types
    if config.train.deepspeed:
        return Accelerator(deepspeed_plugin=deepspeed.plugin(config, plan.dtype))
    mixed = plan.dtype == "bfloat16" and moving == torch.float32
    mixed = mixed and config.method.finetuning_type != "lora"  # LoRA's own arithmetic keeps A and B in float32
    return Accelerator(cpu=plan.device == "cpu", mixed_precision="bf16" if mixed else "no")


def _check_same(folder: Path, fingerprint: Mapping[str, str], allow_changed: bool) -> None:
    """Raises: RunError when a checkpoint was made with other data, template, tokenizer or model."""
    state = checkpoint.read_state(folder)
    other = [name for name, value in fingerprint.items() if state["fingerprint"].get(name, value) != value]
    if other and not allow_changed:
        raise RunError(
            f"The checkpoint was made with another {' and '.join(other)}.",
            str(folder),
            "Put it back as it was, or add --allow-changed, or --fresh for a new run.",
        )


def _restore(training: Training, folder: Path) -> None:
    """Put optimizer, schedule, random states and progress back from a checkpoint; its weights are in the model."""
    state = checkpoint.read_state(folder)
    checkpoint.load_optimizer(folder, training.optimizer)
    restore_scheduler(training.scheduler, state["scheduler"])
    training.progress = replace(Progress(**state["progress"]), skipped_steps=0)
    training.event("resumed", step=training.progress.step, path=folder.name)


def _run_steps(training: Training, signals: list[int]) -> None:
    plan, seed = training.plan, training.config.train.data_seed
    seed = training.config.train.seed if seed is None else seed
    while training.progress.step < plan.total_steps:
        epoch, first = divmod(training.progress.step, plan.steps_per_epoch)
        for chosen in global_batches(plan.rows, plan.global_batch, seed, epoch, in_order=plan.streaming)[first:]:
            step(training, chosen)
            if _after_step(training, signals):
                return


def step(training: Training, chosen: list[int]) -> None:
    """One optimizer step: loss = sum over label tokens / label tokens of the whole global batch."""
    started, plan = time.perf_counter(), training.plan
    total, tokens = _gradients(training, chosen)
    loss_value = float(training.accelerator.reduce(total))
    norm = _clip(training) if training.engine is None else 0.0
    progress, rate = training.progress, training.scheduler.get_last_lr()[0]
    if is_finite(loss_value, norm):
        if training.engine:
            norm = training.engine.step()
        else:
            training.optimizer.step()
        training.scheduler.step()
    else:
        _skip_step(training, chosen, loss_value, norm)
        progress = replace(progress, skipped_steps=progress.skipped_steps + 1)
        loss_value = 0.0
    training.optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    parts = [part for row in chosen for part in sequences(training.rows[row])]
    useful, label_tokens = sum(len(part) for part in parts), sum(part.label_tokens for part in parts)
    training.progress = replace(
        progress,
        step=progress.step + 1,
        tokens=progress.tokens + useful,
        label_tokens=progress.label_tokens + label_tokens,
        loss_sum=progress.loss_sum + loss_value,
        seconds=progress.seconds + seconds,
    )
    training.event(
        "step",
        step=training.progress.step,
        epoch=round(training.progress.step / plan.steps_per_epoch, 4),
        loss=loss_value,
        learning_rate=rate,
        grad_norm=norm,
        tokens=useful,
        label_tokens=label_tokens,
        padded_tokens=tokens,
        seconds=round(seconds, 4),
        memory_bytes=memory_bytes(training.accelerator.device),
    )
    if training.progress.step % training.config.train.logging_steps == 0 and training.accelerator.is_main_process:
        training_log.log_step(training.run, plan, training.progress, loss_value, rate)
    if training.progress.skipped_steps >= MAX_SKIPPED_STEPS:
        raise RunError(
            f"{MAX_SKIPPED_STEPS} steps had a loss or gradient that is no number.",
            str(training.run.path),
            "Look at the rows named in events.jsonl (skipped_step); lower the learning rate. Checkpoints are kept.",
        )


def _clip(training: Training) -> float:
    """Sum the gradients over the processes and clip them; their norm before that."""
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    processes.sum_gradients(parameters)
    limit = training.config.train.max_grad_norm
    return float(processes.full_tensor(torch.nn.utils.clip_grad_norm_(parameters, limit if limit else float("inf"))))


def _gradients(training: Training, chosen: list[int]) -> tuple[torch.Tensor, int]:
    """Gradients of one global batch; out of memory, the micro-batches are halved and the step is begun again.

    Raises: RunError when not even one row at a time fits.
    """
    step, random = training.progress.step + 1, checkpoint.random_states()
    if training.progress.micro_divisor < training.replay.get(step, 1):
        training.progress = replace(training.progress, micro_divisor=training.replay[step])
    while True:
        try:
            return _accumulate(training, chosen)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or training.accelerator.num_processes > 1:
                raise
            reason = str(error).splitlines()[0]
        divisor = 2 * training.progress.micro_divisor
        if divisor > training.plan.micro_batch_size:
            raise OutOfMemory(
                f"Out of memory with one row at a time: {reason}",
                str(training.run.path),
                "Lower cutoff_len, or use LoRA, a smaller model, or a larger machine. Checkpoints are kept.",
            )
        training.progress = replace(training.progress, micro_divisor=divisor)
        training.optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        checkpoint.restore_random(random)
        training.event("oom", step=step, micro_divisor=divisor, reason=reason)


def _accumulate(training: Training, chosen: list[int]) -> tuple[torch.Tensor, int]:
    """(summed loss / weight of this process's share, padded tokens), with the gradients left in the model."""
    world, rank = training.accelerator.num_processes, training.accelerator.process_index
    weight = sum(training.stage.weight(training.rows[row]) for row in chosen)
    divisor = training.progress.micro_divisor
    plan = replace(
        training.plan,
        micro_batch_size=max(1, training.plan.micro_batch_size // divisor),
        micro_tokens=max(1, training.plan.micro_tokens // divisor),
    )
    total = torch.zeros((), device=training.accelerator.device)
    tokens = 0
    kl = _kl(training, chosen) if hasattr(training.stage, "kl_batches") else None
    batches = training.stage.batches(training.rows, chosen[rank::world], plan, training.pad_id)
    most = (
        processes.all_reduce_max(len(batches), training.accelerator.device)
        if training.equal_micro_batches
        else len(batches)
    )
    spare = most - len(batches)
    if spare:  # every process must pass through the sharded layers equally often
        more = training.stage.batches(training.rows, chosen[:1], plan, training.pad_id)[:1]
        batches = [*batches, *more * spare]
    for number, batch in enumerate(batches):
        batch = replace(batch, kl=kl).to(training.accelerator.device)
        loss = training.objective(batch) / weight * (number < len(batches) - spare)
        if training.engine:
            training.engine.backward(loss, last=number == len(batches) - 1)
        else:  # FSDP2 averages over processes; we want the sum
            (loss * world if training.equal_micro_batches else loss).backward()
        total += loss.detach()
        tokens += batch.ids_BT.numel()
    return total, tokens


def _kl(training: Training, chosen: list[int]) -> torch.Tensor:
    """kto's z₀ over the whole global batch and all processes, ≥ 0 (nats)."""
    accelerator, objective = training.accelerator, training.accelerator.unwrap_model(training.objective)
    total = torch.zeros((), device=accelerator.device)
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    for batch in training.stage.kl_batches(training.rows, chosen, training.plan, training.pad_id, share):
        total += objective.log_ratios(batch.to(accelerator.device))
    summed: torch.Tensor = accelerator.reduce(total)
    return (summed / len(chosen)).clamp(min=0)


def _skip_step(training: Training, chosen: list[int], loss: float, norm: float) -> None:
    origins = [getattr(training.rows[row], "origin", None) for row in chosen]
    training.event(
        "skipped_step",
        step=training.progress.step + 1,
        loss=str(loss),
        grad_norm=str(norm),
        rows=[origin.id for origin in origins if origin is not None],
    )


def _after_step(training: Training, signals: list[int]) -> bool:
    """Evaluate, save, stop; True when the training is over."""
    plan, settings, step = training.plan, training.config.train, training.progress.step
    last = step >= plan.total_steps
    saved = False
    if plan.eval_steps and (step % plan.eval_steps == 0 or last):
        evaluate(training)
        saved = settings.load_best_model_at_end and training.progress.best_step == step and not last
    if training.sample is not None and settings.sample_steps and step % settings.sample_steps == 0:
        _sample(training)
    heard = processes.all_reduce_max(signals[0] if signals else 0, training.accelerator.device)
    if heard:
        path = save(training)
        raise Interrupted(
            heard,
            f"Stopped by a signal after step {step} of {plan.total_steps}; nothing is lost.",
            str(path),
            "The same command goes on from here.",
        )
    if saved or (plan.save_steps and step % plan.save_steps == 0 and not last):
        save(training)
    patience = settings.early_stopping_steps
    return last or bool(patience and training.progress.evals_without_improvement >= patience)


def _sample(training: Training) -> None:
    """Answer the fixed prompts as the model stands; the training's random numbers are not touched."""
    assert training.sample is not None
    module = training.accelerator.unwrap_model(training.objective)
    module.eval()
    with torch.random.fork_rng():
        for prompt, text in training.sample():
            training.event("sample", step=training.progress.step, prompt=prompt, text=text)
    module.train()


def _load_best(training: Training) -> None:
    """Put the weights with the lowest held-out loss back, where that was asked for and is not the last step."""
    best = training.progress.best_step
    if not training.config.train.load_best_model_at_end or best in (None, training.progress.step):
        return
    folder = training.run.path / f"checkpoint-{best}"
    if wrong := checkpoint.verify(folder):
        training.event("warning", text=f"The best checkpoint cannot be used ({wrong}); the last weights are kept.")
        return
    checkpoint.load_trained_weights(folder, training.accelerator.unwrap_model(training.objective).model)
    training.event("best", step=best, eval_loss=training.progress.best_loss, path=folder.name)


def _full_weights(training: Training) -> AbstractContextManager[None]:
    """While it is open, the first process's model carries its weights whole, for saving."""
    model = training.accelerator.unwrap_model(training.objective).model
    state = deepspeed.full_state(training.accelerator, training.objective) if training.engine else None
    return processes.full_weights(model, state)


def save(training: Training) -> Path:
    """Write a checkpoint: whole by the first process, or each process's own shards of a sharded model."""
    settings, path = training.config.train, training.run / f"checkpoint-{training.progress.step}"
    model = training.accelerator.unwrap_model(training.objective).model
    state = scheduler_state(training.scheduler)
    if processes.is_sharded(model.parameters()):
        checkpoint.save_sharded(
            training.run,
            training.progress,
            model=model,
            scheduler_state=state,
            fingerprint=training.fingerprint,
            optimizer=None if settings.save_only_model else training.optimizer,
        )
    else:
        none = settings.save_only_model or training.engine
        with _full_weights(training):
            if training.accelerator.is_main_process:
                checkpoint.save(
                    training.run,
                    training.progress,
                    write_model=training.write_model,
                    scheduler_state=state,
                    optimizer=None if none else checkpoint.flatten_optimizer(training.optimizer),
                    fingerprint=training.fingerprint,
                )
    if training.accelerator.is_main_process:
        training.event("checkpoint", step=training.progress.step, path=path.name)
        checkpoint.prune(training.run, settings.save_total_limit, training.progress.best_step)
    processes.barrier()
    return path


@torch.no_grad()
def evaluate(training: Training) -> None:
    """Held-out loss per label token over all held-out rows."""
    rows, objective = training.eval_rows, training.accelerator.unwrap_model(training.objective)
    objective.eval()
    total, weight = 0.0, 0
    for start in range(0, len(rows), 64):
        chosen = list(range(start, min(start + 64, len(rows))))
        for batch in training.stage.batches(rows, chosen, training.plan, training.pad_id):
            total += float(objective(batch.to(training.accelerator.device)))
        weight += sum(training.stage.weight(rows[row]) for row in chosen)
    objective.train()
    loss, progress = total / max(weight, 1), training.progress
    better = progress.best_loss is None or loss < progress.best_loss
    training.progress = replace(
        progress,
        best_loss=loss if better else progress.best_loss,
        best_step=progress.step if better else progress.best_step,
        evals_without_improvement=0 if better else progress.evals_without_improvement + 1,
    )
    training.event(
        "eval", step=progress.step, epoch=round(progress.step / training.plan.steps_per_epoch, 4), eval_loss=loss
    )


def memory_bytes(device: torch.device) -> int:
    """What the device's allocator holds at most so far, or this process's resident memory on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def device_memory_bytes(device: torch.device) -> int:
    """All the memory there is: the device's own, or the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
