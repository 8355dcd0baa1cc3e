"""Supervised fine-tuning: the negative log-likelihood of the learned tokens (Ouyang et al. 2022, step 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sartor.base.types import TokenSequence
from sartor.model.batch import Batch, collate, micro_batches, pack_batches
from sartor.model.head import summed_loss
from sartor.training.plan import Plan

EXAMPLES = ({"stage": "sft", "dataset": "pride_en"},)

ACCEPTS = TokenSequence
TEXT = "imitates answers: take `ranking` and `kto_tag` out of the entry in dataset_info.json"


class Objective(nn.Module):
    """A module around the model, so that DDP and FSDP see one forward: batch → summed loss."""

    def __init__(self, model: Any, method: Any = None, other: Any = None) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return summed_loss(self.model, batch)


def weight(row: TokenSequence) -> int:
    """What a row counts in the mean: its label tokens."""
    return row.label_tokens


def batches(rows: Sequence[TokenSequence], chosen: Sequence[int], plan: Plan, pad_id: int) -> list[Batch]:
    """One global batch cut as the plan says: packed, or padded and sorted by length."""
    if plan.packing:
        return pack_batches(rows, chosen, plan.pack_tokens, plan.micro_tokens, pad_id)
    cut = micro_batches(chosen, {row: len(rows[row]) for row in chosen}, plan.micro_batch_size, plan.micro_tokens)
    return [collate(rows, part, pad_id) for part in cut]
