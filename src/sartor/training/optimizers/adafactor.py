"""Adafactor of torch: second moments as rows and columns of a matrix (Shazeer and Stern 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sartor.base.i18n import tr
from sartor.base.settings import TrainSettings
from sartor.training.optimizers import OptimizerPlugin


class Adafactor(OptimizerPlugin):
    """Hardly any state."""

    name = "adafactor"
    label = tr("Adafactor (hardly any state)")
    examples = ({"dataset": "pride_en", "optim": "adafactor"},)

    def state_bytes(self, number_bytes: float) -> float:
        return 0.1

    def build(self, groups: Sequence[Mapping[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
        return torch.optim.Adafactor([dict(group) for group in groups], lr=settings.learning_rate)


PLUGIN = Adafactor()
