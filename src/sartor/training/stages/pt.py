"""Continued pre-training: the negative log-likelihood of every token of documents, packed into full rows."""

from __future__ import annotations

from collections.abc import Sequence

from sartor.base.types import TokenSequence
from sartor.model.batch import Batch, pack_batches
from sartor.training.plan import Plan
from sartor.training.stages.sft import Objective, weight

EXAMPLES = ({"stage": "pt", "dataset": "novel", "cutoff_len": 512, "overlong": "split"},)

ACCEPTS = TokenSequence
TEXT = "reads documents: map the text to `prompt` in dataset_info.json"

__all__ = ["EXAMPLES", "ACCEPTS", "TEXT", "Objective", "batches", "weight"]


def batches(rows: Sequence[TokenSequence], chosen: Sequence[int], plan: Plan, pad_id: int) -> list[Batch]:
    """One global batch, always packed: documents never attend to each other, positions restart."""
    return pack_batches(rows, chosen, plan.pack_tokens, plan.micro_tokens, pad_id)
