"""The optimizer and the learning rate schedule that the settings name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from sartor.base.errors import ConfigError
from sartor.base.settings import TrainSettings
from sartor.training.optimizers import OPTIMIZERS
from sartor.training.plan import Plan

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler


def make_optimizer(model: nn.Module, settings: TrainSettings, *, lora_lr_ratio: float | None = None) -> Optimizer:
    """Over the trained parameters; weight decay on matrices only; LoRA+ gives B its own learning rate.

    Raises: ConfigError when the optimizer needs a package that is not installed.
    """
    plugin = OPTIMIZERS.get(settings.optim)
    groups: dict[tuple[float, float, bool | None], list[nn.Parameter]] = {}
    matrices = _hidden_matrices(model) if plugin.marks_matrices else set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        ratio = lora_lr_ratio if lora_lr_ratio and "lora_B" in name else 1.0
        mark = name in matrices if plugin.marks_matrices else None
        groups.setdefault((decay, ratio, mark), []).append(parameter)
    param_groups = [
        {"params": params, "weight_decay": decay, "lr": settings.learning_rate * ratio}
        | ({} if mark is None else {"hidden_matrix": mark})
        for (decay, ratio, mark), params in groups.items()
    ]
    try:
        return plugin.build(param_groups, settings)
    except ImportError:
        raise ConfigError(
            "optim: {optim} needs {package}.",
            "optim",
            "Run: {command}",
            optim=plugin.name,
            package=plugin.package,
            command=plugin.install,
        ) from None


def _hidden_matrices(model: nn.Module) -> set[str]:
    """Names of the 2-D parameters that are neither an embedding nor the head, as Muon's authors advise."""
    from transformers import PreTrainedModel

    heads = [part.get_output_embeddings() for part in model.modules() if isinstance(part, PreTrainedModel)]
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    outer = [*embeddings, *(head for head in heads if head is not None)]
    excluded = {id(p) for module in outer for p in module.parameters()}
    return {name for name, p in model.named_parameters() if p.ndim == 2 and id(p) not in excluded}


def make_scheduler(optimizer: Optimizer, settings: TrainSettings, plan: Plan) -> LRScheduler:
    """transformers' schedule of that name over the plan's steps and warm-up. Raises: ConfigError for bad options."""
    from transformers import get_scheduler  # brings peft and bitsandbytes

    try:
        scheduler: LRScheduler = get_scheduler(
            settings.lr_scheduler_type,
            optimizer,
            num_warmup_steps=plan.warmup_steps,
            num_training_steps=max(plan.total_steps, 1),
            scheduler_specific_kwargs=_schedule_options(settings, plan),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "Invalid options for the schedule {schedule}: {reason}.",
            "lr_scheduler_kwargs",
            "See transformers.get_scheduler for each schedule's options.",
            schedule=settings.lr_scheduler_type,
            reason=error,
        ) from None
    return scheduler


def _schedule_options(settings: TrainSettings, plan: Plan) -> dict[str, Any] | None:
    """The options given, and defaults for the two schedules that require some: decay over the last tenth of the steps,
    and down to a tenth of the learning rate."""
    options = dict(settings.lr_scheduler_kwargs)
    if settings.lr_scheduler_type == "warmup_stable_decay":
        options.setdefault("num_decay_steps", max(1, plan.total_steps // 10))
    if settings.lr_scheduler_type == "cosine_with_min_lr" and "min_lr" not in options:
        options.setdefault("min_lr_rate", 0.1)
    return options or None


def scheduler_state(scheduler: LRScheduler) -> dict[str, Any]:
    """The schedule's numbers as JSON; its functions are rebuilt from the settings."""
    kept = ("last_epoch", "_step_count", "_last_lr", "base_lrs")
    return {name: value for name, value in scheduler.state_dict().items() if name in kept}


def restore_scheduler(scheduler: LRScheduler, state: Mapping[str, Any]) -> None:
    """Put the numbers back, and each group's learning rate as it was."""
    scheduler.load_state_dict({**scheduler.state_dict(), **state})
    for group, rate in zip(scheduler.optimizer.param_groups, state["_last_lr"], strict=True):
        group["lr"] = rate


def is_finite(*numbers: float) -> bool:
    """Whether none of them is NaN or infinite."""
    return all(math.isfinite(number) for number in numbers)
