"""Continued pre-training: the negative log-likelihood of every token of documents, packed into full rows."""

from __future__ import annotations

from collections.abc import Sequence as Listed

from sartor.base.types import Sequence
from sartor.learn.batch import Batch, collate_packed, packed_batches
from sartor.learn.plan import Plan
from sartor.learn.stages.sft import Objective, weight

EXAMPLES = ({"stage": "pt", "dataset": "novel", "cutoff_len": 512, "overlong": "split"},)

KIND = Sequence
TEXT = "reads documents: map the text to `prompt` in dataset_info.json"

__all__ = ["EXAMPLES", "KIND", "TEXT", "Objective", "batches", "weight"]


def batches(rows: Listed[Sequence], chosen: Listed[int], plan: Plan, pad_id: int) -> list[Batch]:
    """One global batch, always packed: documents never attend to each other, positions restart."""
    return [collate_packed(rows, pack) for pack in packed_batches(chosen, [len(r) for r in rows], plan.micro_tokens)]
