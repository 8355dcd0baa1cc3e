"""Continued pre-training: the negative log-likelihood of every token of documents, packed into full rows."""

from __future__ import annotations

from collections.abc import Sequence

from sartor.base.i18n import tr
from sartor.base.types import TokenSequence
from sartor.model.batch import Batch, pack_batches
from sartor.training.stages import BatchLimits
from sartor.training.stages.sft import SftStage


class PtStage(SftStage):
    """sft's loss over whole documents, which are always packed."""

    name = "pt"
    label = tr("Read documents")
    description = tr("Continued pre-training: trains on every token of documents, packed into full rows.")
    row_error = tr("Stage pt trains on documents, and this row is not one.")
    row_fix = tr("Map the text to `prompt` in dataset_info.json, or choose another stage.")
    packs = True
    deepspeed = False
    examples = ({"stage": "pt", "dataset": "novel", "cutoff_len": 512, "overlong": "split"},)

    def batches(
        self, rows: Sequence[TokenSequence], chosen: Sequence[int], limits: BatchLimits, pad_id: int
    ) -> list[Batch]:
        """Documents of one packed row never attend to each other; positions restart."""
        if limits.never_pack:
            return super().batches(rows, chosen, limits, pad_id)
        return pack_batches(rows, chosen, limits.pack_tokens, limits.max_tokens, pad_id)


PLUGIN = PtStage()
