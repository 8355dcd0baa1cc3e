"""Preference learning without a reward model: six losses over pairs of answers, each summed over the pairs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartor.base.i18n import tr
from sartor.base.settings import MethodSettings
from sartor.model.batch import Batch
from sartor.model.head import sequence_logps
from sartor.training.objective import Objective
from sartor.training.reference import Reference
from sartor.training.stages._pairs import PairStage

WITHOUT_REFERENCE = ("orpo", "simpo")
"""The values of `pref_loss` that compare with no reference model."""


def pair_losses(
    method: MethodSettings,
    chosen: tuple[Tensor, Tensor],
    rejected: tuple[Tensor, Tensor],
    reference: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Loss of each pair, loss_P, from (logp_P, count_P) of the chosen and of the rejected answers.

    `reference` holds logp_P of both under the reference; orpo and simpo have none. β is `pref_beta`. With
    h = ln π(y_w)/π_ref(y_w) − ln π(y_l)/π_ref(y_l):

    - sigmoid: −ln σ(βh) (DPO, Rafailov et al. 2023, eq. 7); `dpo_label_smoothing` ε: −(1−ε) ln σ(βh) − ε ln σ(−βh)
      (cDPO, Mitchell 2023, eq. 3)
    - hinge: max(0, 1 − βh) (SLiC as Liu et al. 2023, RSO, eq. 10)
    - ipo: (h − 1/(2β))² (Azar et al. 2023, eq. 17), log-ratios averaged over tokens, as its authors confirmed to TRL
    - kto_pair: (1 − σ(β(r_w − z_l)) + 1 − σ(β(z_w − r_l))) / 2, z the other side's mean log-ratio in the batch, ≥ 0
      (Ethayarajh et al. 2024, eq. 8, with pairs as in their first release); micro-batches change it
    - orpo: −ln p̄(y_w) − β ln σ(ln odds(y_w)/odds(y_l)), p̄ the geometric mean over tokens (Hong et al. 2024, eq. 4–7)
    - simpo: −ln σ(β ln p̄(y_w) − β ln p̄(y_l) − γ) (Meng et al. 2024, eq. 6)
    """
    beta, kind = method.pref_beta, method.pref_loss
    (logp_w, count_w), (logp_l, count_l) = chosen, rejected
    if reference is None:
        mean_w, mean_l = logp_w / count_w, logp_l / count_l
        if kind == "simpo":
            return -F.logsigmoid(beta * (mean_w - mean_l) - method.simpo_gamma)
        odds = (mean_w - mean_l) - (_log1mexp(mean_w) - _log1mexp(mean_l))
        return -mean_w - beta * F.logsigmoid(odds)
    ratio_w, ratio_l = logp_w - reference[0], logp_l - reference[1]
    if kind == "ipo":
        return (ratio_w / count_w - ratio_l / count_l - 1 / (2 * beta)).square()
    if kind == "hinge":
        return F.relu(1 - beta * (ratio_w - ratio_l))
    if kind == "kto_pair":
        kl_w, kl_l = (ratio.detach().mean().clamp(min=0) for ratio in (ratio_w, ratio_l))
        return (2 - torch.sigmoid(beta * (ratio_w - kl_l)) - torch.sigmoid(beta * (kl_w - ratio_l))) / 2
    smoothing = method.dpo_label_smoothing
    margin = beta * (ratio_w - ratio_l)
    return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)


def _log1mexp(logp: Tensor) -> Tensor:
    """ln(1 − e^x) for x < 0, exact near 0 and far from it (Mächler 2012); x is kept below 0 by one rounding step."""
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    near = torch.log(-torch.expm1(logp.clamp(min=-math.log(2))))
    return torch.where(logp > -math.log(2), near, torch.log1p(-torch.exp(logp)))


class PairLoss(Objective):
    """Batch of n chosen and n rejected rows → summed loss of the n pairs; `pref_ftx` adds the chosen answers' SFT."""

    def __init__(self, model: nn.Module, method: MethodSettings, reference: Reference | None) -> None:
        super().__init__(model, reference)
        self.method = method

    def forward(self, batch: Batch) -> Tensor:
        before: tuple[Tensor, Tensor] | None = None
        if self.reference is not None:
            with self.reference.of(self.model) as reference:
                reference_w, reference_l = sequence_logps(reference, batch)[0].chunk(2)
                before = reference_w, reference_l
        logp, count = sequence_logps(self.model, batch)
        (logp_w, logp_l), (count_w, count_l) = logp.chunk(2), count.chunk(2)
        losses = pair_losses(self.method, (logp_w, count_w), (logp_l, count_l), before)
        if self.method.pref_ftx:
            losses = losses - self.method.pref_ftx * logp_w / count_w
        return losses.sum()


class DpoStage(PairStage):
    """The loss is the one that `pref_loss` names."""

    name = "dpo"
    label = tr("Prefer one answer to another")
    description = tr("Direct preference optimization and related losses (pref_loss) over pairs of answers.")
    options = ("pref_beta", "pref_ftx", "pref_loss", "dpo_label_smoothing", "simpo_gamma", "ref_model")
    examples = (
        {"stage": "dpo", "dataset": "pairs", "pref_loss": "sigmoid", "pref_beta": 0.1},
        {"stage": "dpo", "dataset": "pairs", "pref_loss": "orpo"},
        {"stage": "dpo", "dataset": "pairs", "pref_loss": "simpo", "pref_beta": 2.0, "simpo_gamma": 1.0},
    )

    def needs_reference(self, method: MethodSettings) -> bool:
        return method.pref_loss not in WITHOUT_REFERENCE

    def objective(self, model: nn.Module, method: MethodSettings, other: nn.Module | None = None) -> Objective:
        return PairLoss(model, method, Reference(model, other) if self.needs_reference(method) else None)


PLUGIN = DpoStage()
