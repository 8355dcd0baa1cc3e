"""Learning from answers labeled good or bad, one at a time (KTO: Ethayarajh et al. 2024, equations 6–8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from sartor.base.i18n import tr
from sartor.base.settings import MethodSettings
from sartor.base.types import TokenSequence, UnpairedSequence
from sartor.model.batch import Batch, collate, micro_batches
from sartor.model.head import sequence_logps
from sartor.training.objective import Objective
from sartor.training.reference import Reference
from sartor.training.stages import BatchLimits, Stage


def unpaired_losses(method: MethodSettings, logp_B: Tensor, reference_B: Tensor, good_B: Tensor, kl: Tensor) -> Tensor:
    """Loss of each row: λ_D (1 − σ(β(r − z₀))) for a good answer, λ_U (1 − σ(β(z₀ − r))) for a bad one.

    r = ln π(y)/π_ref(y); `kl` is z₀ ≥ 0; λ are `kto_chosen_weight` and `kto_rejected_weight`.
    """
    gain_B = method.pref_beta * (logp_B - reference_B - kl)
    good = method.kto_chosen_weight * (1 - torch.sigmoid(gain_B))
    return torch.where(good_B, good, method.kto_rejected_weight * (1 - torch.sigmoid(-gain_B)))


class UnpairedLoss(Objective):
    """Batch of labeled answers, with z₀ → summed loss; `pref_ftx` adds the SFT loss of the good answers."""

    def __init__(self, model: nn.Module, method: MethodSettings, reference: Reference) -> None:
        super().__init__(model, reference)
        self.method = method

    def forward(self, batch: Batch) -> Tensor:
        assert batch.good_B is not None
        reference_B = self._reference_logps(batch)
        logp_B, count_B = sequence_logps(self.model, batch)
        kl = batch.kl if batch.kl is not None else logp_B.new_zeros(())
        loss_B = unpaired_losses(self.method, logp_B, reference_B, batch.good_B, kl)
        if self.method.pref_ftx:
            loss_B = loss_B - self.method.pref_ftx * torch.where(batch.good_B, logp_B / count_B, 0.0)
        return loss_B.sum()

    @torch.no_grad()
    def log_ratios(self, batch: Batch) -> Tensor:
        reference_B = self._reference_logps(batch)
        training = self.model.training
        self.model.eval()
        ratio = (sequence_logps(self.model, batch)[0] - reference_B).sum()
        self.model.train(training)
        return ratio

    def _reference_logps(self, batch: Batch) -> Tensor:
        assert self.reference is not None
        with self.reference.of(self.model) as reference:
            return sequence_logps(reference, batch)[0]


class KtoStage(Stage[UnpairedSequence]):
    """Each answer counts one; z₀ is estimated once for the whole global batch."""

    name = "kto"
    label = tr("Learn from good and bad answers")
    description = tr("KTO: trains on single answers labeled good or bad.")
    accepts = UnpairedSequence
    row_error = tr("Stage kto trains on answers labeled good or bad, and this row has no label.")
    row_fix = tr("Map `kto_tag` in dataset_info.json, or choose another stage.")
    options = ("pref_beta", "pref_ftx", "kto_chosen_weight", "kto_rejected_weight", "ref_model")
    examples = ({"stage": "kto", "dataset": "judged", "pref_beta": 0.1},)

    def needs_reference(self, method: MethodSettings) -> bool:
        return True

    def objective(self, model: nn.Module, method: MethodSettings, other: nn.Module | None = None) -> Objective:
        return UnpairedLoss(model, method, Reference(model, other))

    def weight(self, row: UnpairedSequence) -> int:
        return 1

    def batches(
        self, rows: Sequence[UnpairedSequence], chosen: Sequence[int], limits: BatchLimits, pad_id: int
    ) -> list[Batch]:
        """Padded and sorted by length, without z₀."""
        lengths = {row: len(rows[row].sequence) for row in chosen}
        batches = []
        for part in micro_batches(chosen, lengths, limits.max_rows, limits.max_tokens):
            batch = collate([rows[row].sequence for row in part], range(len(part)), pad_id)
            good_B = torch.tensor([rows[row].good for row in part])
            batches.append(replace(batch, rows=tuple(part), good_B=good_B))
        return batches

    def kl_batches(
        self, rows: Sequence[UnpairedSequence], chosen: Sequence[int], limits: BatchLimits, pad_id: int, share: slice
    ) -> list[Batch]:
        """Mismatched rows: each prompt of the global batch with the answer of the next row in it.

        The mean of their log-ratios, cut at 0, estimates z₀ = KL(π‖π_ref); over the whole global batch, so that
        accumulating gradients changes nothing.
        """
        if len(chosen) > 1:
            others = [*chosen[1:], chosen[0]]
        else:  # a lone row takes the answer of a neighbor
            others = [chosen[0] + 1 if chosen[0] + 1 < len(rows) else chosen[0] - 1]
        longest = max(len(rows[row].sequence) for row in (*chosen, *others))
        pairs = list(zip(chosen, others))[share]
        mismatched = [_joined(rows[prompt].sequence, rows[answer].sequence, longest) for prompt, answer in pairs]
        lengths = [len(sequence) for sequence in mismatched]
        cut = micro_batches(range(len(mismatched)), lengths, limits.max_rows, limits.max_tokens)
        return [collate(mismatched, part, pad_id) for part in cut]


def _joined(prompt: TokenSequence, answer: TokenSequence, max_tokens: int) -> TokenSequence:
    prompt_end, answer_start = prompt.label_spans[0][0], answer.label_spans[0][0]
    ids = np.concatenate([prompt.ids[:prompt_end], answer.ids[answer_start:]])[:max_tokens]
    return TokenSequence(ids, ((prompt_end, len(ids)),))


PLUGIN = KtoStage()
