"""The optimizer and the schedule that the settings name; knows no data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sartor.base.errors import ConfigError
from sartor.base.settings import TrainSettings
from sartor.training.plan import Plan


def make_optimizer(model: nn.Module, settings: TrainSettings, *, lora_lr_ratio: float | None = None) -> Any:
    """Over the parameters that move; weight decay on matrices only; LoRA+ gives B its own rate.

    Raises: ConfigError when the optimizer needs a package or device that is not here.
    """
    moving = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in moving:
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        ratio = lora_lr_ratio if lora_lr_ratio and "lora_B" in name else 1.0
        groups.setdefault((decay, ratio), []).append(parameter)
    param_groups = [
        {"params": params, "weight_decay": decay, "lr": settings.learning_rate * ratio}
        for (decay, ratio), params in groups.items()
    ]
    return _build(settings, param_groups, [p for _, p in moving])


def _build(settings: TrainSettings, groups: list[dict[str, Any]], parameters: Iterable[Any]) -> Any:
    betas = (settings.adam_beta1, settings.adam_beta2)
    if settings.optim in ("adamw_torch", "adamw_torch_fused"):
        fused = all(p.dtype in (torch.float32, torch.bfloat16) and not hasattr(p, "full_tensor") for p in parameters)
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.adam_epsilon, fused=fused)
    if settings.optim == "adafactor":
        return torch.optim.Adafactor(groups, lr=settings.learning_rate)
    if settings.optim == "muon":
        if any(p.ndim != 2 for p in parameters):
            raise ConfigError("Muon moves matrices only.", "optim: muon", "Use it with LoRA, or choose adamw_torch.")
        return torch.optim.Muon(groups, lr=settings.learning_rate, adjust_lr_fn="match_rms_adamw")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ConfigError(
            f"optim: {settings.optim} needs bitsandbytes.", "optim", "Run: pip install 'sartor[quant]'"
        ) from None
    return AdamW8bit(groups, lr=settings.learning_rate, betas=betas, eps=settings.adam_epsilon)


def make_scheduler(optimizer: Any, settings: TrainSettings, plan: Plan) -> Any:
    """transformers' schedule of that name over the plan's steps and warm-up. Raises: ConfigError for bad options."""
    from transformers import get_scheduler

    try:
        return get_scheduler(
            settings.lr_scheduler_type,
            optimizer,
            num_warmup_steps=plan.warmup_steps,
            num_training_steps=max(plan.total_steps, 1),
            scheduler_specific_kwargs=_schedule_options(settings, plan),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The schedule {settings.lr_scheduler_type} cannot be made: {error}.",
            "lr_scheduler_kwargs",
            "transformers.get_scheduler names each schedule's options.",
        ) from None


def _schedule_options(settings: TrainSettings, plan: Plan) -> dict[str, Any] | None:
    """The options asked for, and those without which two schedules cannot be: a tenth of the way down, to a tenth."""
    options = dict(settings.lr_scheduler_kwargs)
    if settings.lr_scheduler_type == "warmup_stable_decay":
        options.setdefault("num_decay_steps", max(1, plan.total_steps // 10))
    if settings.lr_scheduler_type == "cosine_with_min_lr" and "min_lr" not in options:
        options.setdefault("min_lr_rate", 0.1)
    return options or None


def scheduler_state(scheduler: Any) -> dict[str, Any]:
    """The schedule's numbers as JSON; its functions are made anew from the settings."""
    return {
        k: v for k, v in scheduler.state_dict().items() if k in ("last_epoch", "_step_count", "_last_lr", "base_lrs")
    }


def restore_scheduler(scheduler: Any, state: dict[str, Any]) -> None:
    """Put the numbers back, and each group's rate as it was."""
    scheduler.load_state_dict({**scheduler.state_dict(), **state})
    for group, rate in zip(scheduler.optimizer.param_groups, state["_last_lr"], strict=True):
        group["lr"] = rate


def is_finite(*numbers: float) -> bool:
    return all(math.isfinite(number) for number in numbers)
