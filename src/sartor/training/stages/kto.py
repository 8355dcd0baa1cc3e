"""Learning from answers judged good or bad, one at a time (KTO: Ethayarajh et al. 2024, equations 6–8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sartor.base.settings import MethodSettings
from sartor.base.types import TokenSequence, UnpairedSequence
from sartor.model.batch import Batch, collate, micro_batches
from sartor.model.head import sequence_logps
from sartor.training.plan import Plan
from sartor.training.reference import Reference

EXAMPLES = ({"stage": "kto", "dataset": "judged", "pref_beta": 0.1},)

ACCEPTS = UnpairedSequence
TEXT = "learns from answers judged good or bad: map `kto_tag` in dataset_info.json"


def unpaired_losses(method: MethodSettings, logp_B: Tensor, reference_B: Tensor, good_B: Tensor, kl: Tensor) -> Tensor:
    """Loss of each row: λ_D (1 − σ(β(r − z₀))) for a good answer, λ_U (1 − σ(β(z₀ − r))) for a bad one.

    r = ln π(y)/π_ref(y); `kl` is z₀ ≥ 0; λ are `kto_chosen_weight` and `kto_rejected_weight`.
    """
    gain_B = method.pref_beta * (logp_B - reference_B - kl)
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
            reference_B = sequence_logps(before, batch)[0]
        logp_B, count_B = sequence_logps(self.model, batch)
        assert batch.good_B is not None
        kl = batch.kl if batch.kl is not None else logp_B.new_zeros(())
        loss_B = unpaired_losses(self.method, logp_B, reference_B, batch.good_B, kl)
        if self.method.pref_ftx:
            loss_B = loss_B - self.method.pref_ftx * torch.where(batch.good_B, logp_B / count_B, 0.0)
        return loss_B.sum()

    @torch.no_grad()
    def log_ratios(self, batch: Batch) -> Tensor:
        """Sum over rows of ln π(y)/π_ref(y), without gradients or dropout."""
        with self._reference[0].of(self.model) as before:
            reference_B = sequence_logps(before, batch)[0]
        training = self.model.training
        self.model.eval()
        ratio = (sequence_logps(self.model, batch)[0] - reference_B).sum()
        self.model.train(training)
        return ratio


def weight(row: UnpairedSequence) -> int:
    """Each answer counts one."""
    return 1


def batches(rows: Sequence[UnpairedSequence], chosen: Sequence[int], plan: Plan, pad_id: int) -> list[Batch]:
    """One global batch cut as the plan says, without z₀."""
    cut = micro_batches(
        chosen, {row: len(rows[row].sequence) for row in chosen}, plan.micro_batch_size, plan.micro_tokens
    )
    made = []
    for part in cut:
        batch = collate([rows[row].sequence for row in part], range(len(part)), pad_id)
        made.append(replace(batch, rows=tuple(part), good_B=torch.tensor([rows[row].good for row in part])))
    return made


def kl_batches(
    rows: Sequence[UnpairedSequence], chosen: Sequence[int], plan: Plan, pad_id: int, share: slice
) -> list[Batch]:
    """Batches of mismatched rows: each prompt of the global batch with the answer of the next row in it.

    `share` picks one process's part. The mean of their log-ratios, cut at 0, estimates z₀ = KL(π‖π_ref); over the
    whole global batch, so that accumulating gradients changes nothing.
    """
    others = (
        [*chosen[1:], chosen[0]] if len(chosen) > 1 else [chosen[0] + 1 if chosen[0] + 1 < len(rows) else chosen[0] - 1]
    )
    longest = max(len(rows[row].sequence) for row in (*chosen, *others))
    made = [_joined(rows[a].sequence, rows[b].sequence, longest) for a, b in list(zip(chosen, others))[share]]
    cut = micro_batches(range(len(made)), [len(s) for s in made], plan.micro_batch_size, plan.micro_tokens)
    return [collate(made, part, pad_id) for part in cut]


def _joined(prompt: TokenSequence, answer: TokenSequence, longest: int) -> TokenSequence:
    begins, answers = prompt.label_spans[0][0], answer.label_spans[0][0]
    ids = np.concatenate([prompt.ids[:begins], answer.ids[answers:]])[:longest]
    return TokenSequence(ids, ((begins, len(ids)),))
