"""torch's Muon: momentum, orthogonalized (Jordan et al. 2024), at AdamW's learning rates; AdamW for other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from sartor.base.i18n import tr
from sartor.base.settings import TrainSettings
from sartor.training.optimizers import OptimizerPlugin


class MuonWithAdamW(Optimizer):
    """Muon for the groups marked `hidden_matrix`, AdamW for the others; one state and one list of groups."""

    def __init__(self, groups: Sequence[Mapping[str, Any]], settings: TrainSettings) -> None:
        rate, betas = settings.learning_rate, (settings.adam_beta1, settings.adam_beta2)
        matrices, others = ([dict(g) for g in groups if g["hidden_matrix"] is wanted] for wanted in (True, False))
        self._parts: dict[bool, Optimizer] = {}
        if matrices:
            self._parts[True] = torch.optim.Muon(matrices, lr=rate, adjust_lr_fn="match_rms_adamw")
        if others:
            self._parts[False] = AdamW(others, lr=rate, betas=betas, eps=settings.adam_epsilon)
        complete = [group for part in self._parts.values() for group in part.param_groups]
        super().__init__(complete, {"lr": rate})
        self.param_groups = complete

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for wanted, part in self._parts.items():  # a loaded state replaces the groups
            part.param_groups = [group for group in self.param_groups if group["hidden_matrix"] is wanted]
            part.state = self.state
            part.step()
        return loss


class Muon(OptimizerPlugin):
    """One moment of each weight of a matrix."""

    name = "muon"
    label = tr("Muon (AdamW for all but matrices)")
    marks_matrices = True
    examples = ({"dataset": "pride_en", "optim": "muon"},)

    def state_bytes(self, number_bytes: float) -> float:
        return 4.0

    def build(self, groups: Sequence[Mapping[str, Any]], settings: TrainSettings) -> Optimizer:
        return MuonWithAdamW(groups, settings)


PLUGIN = Muon()
