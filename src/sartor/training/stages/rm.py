"""Reward modeling: a scalar head on the last token, −ln σ(r_chosen − r_rejected) (Ouyang et al. 2022, equation 1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sartor.base.i18n import tr
from sartor.base.settings import MethodSettings
from sartor.model.batch import Batch
from sartor.model.head import rewards
from sartor.training.objective import Objective
from sartor.training.stages._pairs import PairStage


def pair_losses(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """−ln σ(r_w − r_l) of each pair (Ouyang et al. 2022, eq. 1 with K = 2)."""
    return -F.logsigmoid(chosen_P - rejected_P)


class RewardLoss(Objective):
    """Batch of n chosen and n rejected rows → summed loss of the n pairs."""

    def forward(self, batch: Batch) -> Tensor:
        chosen_P, rejected_P = rewards(self.model, batch).chunk(2)
        return pair_losses(chosen_P, rejected_P).sum()


class RmStage(PairStage):
    """The model is transformers' sequence classifier with one label, and is saved as that."""

    name = "rm"
    label = tr("Reward model")
    description = tr("Trains a scalar head that scores the chosen answer of a pair above the rejected one.")
    head = "reward"
    examples = ({"stage": "rm", "dataset": "pairs"},)

    def objective(self, model: nn.Module, method: MethodSettings, other: nn.Module | None = None) -> Objective:
        return RewardLoss(model)

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        return rewards(model, batch).sum()


PLUGIN = RmStage()
