"""AdamW of bitsandbytes, whose moments take one byte each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sartor.base.i18n import tr
from sartor.base.settings import TrainSettings
from sartor.training.optimizers import OptimizerPlugin

if TYPE_CHECKING:
    from torch.optim import Optimizer


class AdamW8bit(OptimizerPlugin):
    """Two moments of a byte, and the scale of each block of them."""

    label = tr("AdamW with 8-bit state (bitsandbytes)")
    package = "bitsandbytes"
    install = "pip install 'sartor[quant]'"

    def __init__(self, name: str) -> None:
        self.name = name
        self.examples = ({"dataset": "pride_en", "optim": name},)

    def state_bytes(self, number_bytes: float) -> float:
        return 2.1

    def build(self, groups: Sequence[Mapping[str, Any]], settings: TrainSettings) -> Optimizer:
        from bitsandbytes.optim import AdamW8bit as Adam  # an optional package

        betas = (settings.adam_beta1, settings.adam_beta2)
        optimizer: Optimizer = Adam(
            [dict(group) for group in groups], lr=settings.learning_rate, betas=betas, eps=settings.adam_epsilon
        )
        return optimizer


PLUGIN = AdamW8bit("adamw_8bit")
