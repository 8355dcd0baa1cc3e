"""Supervised fine-tuning: the negative log-likelihood of the label tokens (Ouyang et al. 2022, step 1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sartor.base.i18n import tr
from sartor.base.settings import MethodSettings
from sartor.base.types import TokenSequence
from sartor.model.batch import Batch, collate, micro_batches, pack_batches
from sartor.model.head import summed_loss
from sartor.training.objective import Objective
from sartor.training.stages import BatchLimits, Stage


class TokenLoss(Objective):
    """−ln p summed over the label tokens."""

    def forward(self, batch: Batch) -> Tensor:
        return summed_loss(self.model, batch)


class SftStage(Stage[TokenSequence]):
    """Every label token counts the same, whatever the length of its row."""

    name = "sft"
    label = tr("Imitate answers")
    description = tr("Supervised fine-tuning: trains on the answers of conversations.")
    accepts = TokenSequence
    row_error = tr("Stage sft trains on single answers, and this row is not one.")
    row_fix = tr("Remove `ranking` and `kto_tag` from the entry in dataset_info.json, or choose another stage.")
    deepspeed = True
    examples = ({"stage": "sft", "dataset": "pride_en"},)

    def objective(self, model: nn.Module, method: MethodSettings, other: nn.Module | None = None) -> Objective:
        return TokenLoss(model)

    def weight(self, row: TokenSequence) -> int:
        return row.label_tokens

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        return summed_loss(model, batch)

    def batches(
        self, rows: Sequence[TokenSequence], chosen: Sequence[int], limits: BatchLimits, pad_id: int
    ) -> list[Batch]:
        """Packed, or padded and sorted by length."""
        if limits.packing:
            return pack_batches(rows, chosen, limits.pack_tokens, limits.max_tokens, pad_id)
        cut = micro_batches(chosen, {row: len(rows[row]) for row in chosen}, limits.max_rows, limits.max_tokens)
        return [collate(rows, part, pad_id) for part in cut]


PLUGIN = SftStage()
