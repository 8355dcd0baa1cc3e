"""Muon of torch: momentum, orthogonalized (Jordan et al. 2024), at AdamW's learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sartor.base.i18n import tr
from sartor.base.settings import TrainSettings
from sartor.training.optimizers import OptimizerPlugin


class Muon(OptimizerPlugin):
    """One moment of each weight."""

    name = "muon"
    label = tr("Muon (matrices only)")
    matrices_only = True
    examples = ({"dataset": "pride_en", "optim": "muon"},)

    def state_bytes(self, number_bytes: float) -> float:
        return 4.0

    def build(self, groups: Sequence[Mapping[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
        return torch.optim.Muon(
            [dict(group) for group in groups], lr=settings.learning_rate, adjust_lr_fn="match_rms_adamw"
        )


PLUGIN = Muon()
