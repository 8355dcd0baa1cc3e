"""From a TrainingJob to a Training: objective, optimizer, schedule and accelerator, ready for the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sartor.base.config import RunConfig
from sartor.base.errors import RunError
from sartor.base.i18n import Text
from sartor.model import kernels, shortcuts
from sartor.model.compile import compile_blocks
from sartor.training import checkpoint
from sartor.training.checkpoint import Progress
from sartor.training.distributed import deepspeed, processes
from sartor.training.job import TrainingJob
from sartor.training.objective import Objective
from sartor.training.optimizer import make_optimizer, make_scheduler
from sartor.training.plan import Plan
from sartor.training.stages import STAGES, Stage


@dataclass(slots=True)
class Training:
    """The state of a training: the job, and what changes with each step."""

    job: TrainingJob
    stage: Stage[Any]
    objective: nn.Module
    """The stage's Objective, or DeepSpeed's engine around it; `module` is the Objective itself."""
    optimizer: Optimizer
    scheduler: LRScheduler
    accelerator: Accelerator
    progress: Progress
    engine: deepspeed.Engine | None = None
    """Set where DeepSpeed takes the steps."""
    not_compiled: str | None = None
    """Why the model was not compiled though the plan said so; a warning once the run has a folder."""

    @property
    def module(self) -> Objective:
        return cast(Objective, self.accelerator.unwrap_model(self.objective))

    @property
    def device(self) -> torch.device:
        return cast(torch.device, self.accelerator.device)

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the run's files."""
        return bool(self.accelerator.is_main_process)

    @property
    def equal_micro_batches(self) -> bool:
        """Whether all processes must run equally many micro-batches: sharded layers communicate in each."""
        return self.accelerator.num_processes > 1 and bool(self.job.config.train.fsdp or self.engine)

    def event(self, kind: str, **values: Any) -> None:
        """Append an event to events.jsonl and pass it to the callbacks, in the main process only."""
        if not self.is_main_process:
            return
        event = self.job.run.event(kind, **values)
        for callback in self.job.callbacks:
            callback.on_event(event)

    def warn(self, message: Text) -> None:
        """An event of kind `warning`: the English text, and the message to render in another language."""
        self.event("warning", text=message.render("en"), message=message.to_json())


def set_up(job: TrainingJob) -> Training:
    """Everything before the first step. The order matters: see the comments.

    Raises: ConfigError for an optimizer, schedule or sharding that is not possible here; ModelError when the weights
    of the checkpoint do not fit; RunError when the run cannot resume.
    """
    config, plan, model = job.config, job.plan, job.model
    set_seed(config.train.seed)
    if config.train.deepspeed and job.resume is not None:
        raise RunError("A DeepSpeed run cannot resume.", str(job.resume), "Start over with --fresh, or use fsdp: true.")
    accelerator = _accelerator(config, plan, next(p for p in model.parameters() if p.requires_grad).dtype)
    stage = STAGES.get(config.method.stage)
    model.train()
    if plan.gradient_checkpointing:
        _enable_gradient_checkpointing(model)
    kernels.CHUNK_BYTES = plan.head_chunk_bytes
    for used in (model, job.reference):
        if used is not None:
            shortcuts.prepare(used, plan.shortcuts_off)  # before sharding, which hides the head's weight
    # The objective comes before the checkpoint's weights: its reference is the model as the run began.
    objective: nn.Module = stage.objective(model, config.method, job.reference)
    if job.resume is not None:
        checkpoint.load_trained_weights(job.resume, model)
    if config.train.fsdp:
        processes.shard(cast(Objective, objective), model)
    if not config.train.deepspeed:  # evaluation_mode: no DDP around it, see processes.sum_gradients
        objective = accelerator.prepare_model(objective, evaluation_mode=True)
    not_compiled = compile_blocks(model, accelerator.device) if plan.compiled else None
    # The optimizer comes after sharding, which replaces the parameters.
    optimizer = make_optimizer(model, config.train, lora_lr_ratio=config.method.loraplus_lr_ratio)
    scheduler = make_scheduler(optimizer, config.train, plan)
    engine = None
    if config.train.deepspeed:
        objective, _ = accelerator.prepare(objective, optimizer)
        engine = deepspeed.Engine(cast(deepspeed.DeepSpeedEngine, objective))
    return Training(job, stage, objective, optimizer, scheduler, accelerator, Progress(), engine, not_compiled)


def _enable_gradient_checkpointing(model: nn.Module) -> None:
    """transformers 5.23 renamed the method; neither recomputes reentrantly by default."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    cast(Callable[[], None], enable)()


def _accelerator(config: RunConfig, plan: Plan, trained_dtype: torch.dtype) -> Accelerator:
    """Bfloat16 arithmetic by autocast where the trained weights are float32; DeepSpeed has its own."""
    AcceleratorState._reset_state()  # one process may train twice, in two number types
    if config.train.deepspeed:
        return Accelerator(deepspeed_plugin=deepspeed.plugin(config, plan.dtype))
    mixed = plan.dtype == "bfloat16" and trained_dtype == torch.float32
    mixed = mixed and config.method.finetuning_type != "lora"  # LoRA's own arithmetic keeps A and B in float32
    return Accelerator(cpu=plan.device == "cpu", mixed_precision="bf16" if mixed else "no")
