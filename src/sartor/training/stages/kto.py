"""Learning from answers judged good or bad, one at a time (KTO: Ethayarajh et al. 2024, equations 6–8)."""

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sartor.base.settings import MethodSettings
from sartor.base.types import Judged, Sequence
from sartor.model.batch import Batch, collate, micro_batches
from sartor.model.head import row_logps
from sartor.training.plan import Plan
from sartor.training.reference import Reference

EXAMPLES = ({"stage": "kto", "dataset": "judged", "pref_beta": 0.1},)

KIND = Judged
TEXT = "learns from answers judged good or bad: map `kto_tag` in dataset_info.json"


def judged_losses(method: MethodSettings, logp_B: Tensor, reference_B: Tensor, good_B: Tensor, drift: Tensor) -> Tensor:
    """Loss of each row: λ_D (1 − σ(β(r − z₀))) for a good answer, λ_U (1 − σ(β(z₀ − r))) for a bad one.

    r = ln π(y)/π_ref(y); `drift` is z₀ ≥ 0; λ are `kto_chosen_weight` and `kto_rejected_weight`.
    """
    gain_B = method.pref_beta * (logp_B - reference_B - drift)
    good = method.kto_chosen_weight * (1 - torch.sigmoid(gain_B))
    return torch.where(good_B, good, method.kto_rejected_weight * (1 - torch.sigmoid(-gain_B)))


class Objective(nn.Module):
    """Batch of judged rows, with z₀ → summed loss; `pref_ftx` adds the SFT loss of the good answers."""

    def __init__(self, model: Any, method: MethodSettings, other: Any = None) -> None:
        super().__init__()
        self.model, self.method = model, method
        self._reference = (Reference(model, other),)  # a tuple: no submodule

    def forward(self, batch: Batch) -> Tensor:
        with self._reference[0].of(self.model) as before:
            reference_B = row_logps(before, batch)[0]
        logp_B, count_B = row_logps(self.model, batch)
        assert batch.good_B is not None
        drift = batch.drift if batch.drift is not None else logp_B.new_zeros(())
        loss_B = judged_losses(self.method, logp_B, reference_B, batch.good_B, drift)
        if self.method.pref_ftx:
            loss_B = loss_B - self.method.pref_ftx * torch.where(batch.good_B, logp_B / count_B, 0.0)
        return loss_B.sum()

    @torch.no_grad()
    def log_ratios(self, batch: Batch) -> Tensor:
        """Sum over rows of ln π(y)/π_ref(y), without gradients or dropout."""
        with self._reference[0].of(self.model) as before:
            reference_B = row_logps(before, batch)[0]
        training = self.model.training
        self.model.eval()
        ratio = (row_logps(self.model, batch)[0] - reference_B).sum()
        self.model.train(training)
        return ratio


def weight(row: Judged) -> int:
    """Each answer counts one."""
    return 1


def batches(rows: Listed[Judged], chosen: Listed[int], plan: Plan, pad_id: int) -> list[Batch]:
    """One global batch cut as the plan says, without z₀."""
    cut = micro_batches(chosen, {row: len(rows[row].sequence) for row in chosen}, plan.micro_rows, plan.micro_tokens)
    made = []
    for part in cut:
        batch = collate([rows[row].sequence for row in part], range(len(part)), pad_id)
        made.append(replace(batch, rows=tuple(part), good_B=torch.tensor([rows[row].good for row in part])))
    return made


def drift_batches(rows: Listed[Judged], chosen: Listed[int], plan: Plan, pad_id: int, share: slice) -> list[Batch]:
    """Batches of mismatched rows: each prompt of the global batch with the answer of the next row in it.

    `share` picks one process's part. The mean of their log-ratios, cut at 0, estimates z₀ = KL(π‖π_ref); over the
    whole global batch, so that accumulating gradients changes nothing.
    """
    others = (
        [*chosen[1:], chosen[0]] if len(chosen) > 1 else [chosen[0] + 1 if chosen[0] + 1 < len(rows) else chosen[0] - 1]
    )
    longest = max(len(rows[row].sequence) for row in (*chosen, *others))
    made = [_joined(rows[a].sequence, rows[b].sequence, longest) for a, b in list(zip(chosen, others))[share]]
    cut = micro_batches(range(len(made)), [len(s) for s in made], plan.micro_rows, plan.micro_tokens)
    return [collate(made, part, pad_id) for part in cut]


def _joined(prompt: Sequence, answer: Sequence, longest: int) -> Sequence:
    begins, answers = prompt.learned[0][0], answer.learned[0][0]
    ids = np.concatenate([prompt.ids[:begins], answer.ids[answers:]])[:longest]
    return Sequence(ids, ((begins, len(ids)),))
