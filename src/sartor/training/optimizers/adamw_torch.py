"""AdamW of torch, in its fused form where torch has one for the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sartor.base.i18n import tr
from sartor.base.settings import TrainSettings
from sartor.training.optimizers import OptimizerPlugin


class TorchAdamW(OptimizerPlugin):
    """Two moments of each weight, in the weight's own type."""

    label = tr("AdamW")

    def __init__(self, name: str) -> None:
        self.name = name
        self.examples = ({"dataset": "pride_en", "optim": name},)

    def state_bytes(self, number_bytes: float) -> float:
        return 2 * number_bytes

    def build(self, groups: Sequence[Mapping[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
        parameters = [p for group in groups for p in group["params"]]
        # sharded parameters (FSDP2's DTensor) and other types have no fused step
        fused = all(p.dtype in (torch.float32, torch.bfloat16) and not hasattr(p, "full_tensor") for p in parameters)
        return torch.optim.AdamW(
            [dict(group) for group in groups],
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_epsilon,
            fused=fused,
        )


PLUGIN = TorchAdamW("adamw_torch")
