"""What the stages over pairs of answers share: how pairs are batched and counted."""

from __future__ import annotations

from collections.abc import Sequence

from sartor.base.i18n import tr
from sartor.base.types import Pair
from sartor.model.batch import Batch, pair_batches
from sartor.training.stages import BatchLimits, Stage


class PairStage(Stage[Pair]):
    """Each pair counts one; a micro-batch holds n chosen answers, then the n rejected ones."""

    accepts = Pair
    row_error = tr("This stage trains on pairs of answers, and this row is not one.")
    row_fix = tr("Write `ranking: true` and map `chosen` and `rejected` in dataset_info.json, or choose another stage.")

    def weight(self, row: Pair) -> int:
        return 1

    def batches(self, rows: Sequence[Pair], chosen: Sequence[int], limits: BatchLimits, pad_id: int) -> list[Batch]:
        """Both answers of a pair stay together."""
        return pair_batches(rows, chosen, limits.max_rows, limits.max_tokens, pad_id)
