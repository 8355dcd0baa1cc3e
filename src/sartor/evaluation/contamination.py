"""Leaks: held-out rows that nearly stand among the learned ones, so that their scores show memory; runs no model."""

from __future__ import annotations

from collections.abc import Sequence

from sartor.base.types import Demonstration, Example
from sartor.checks import near_pairs
from sartor.evaluation.verdict import Leak


def find_leaks(train: Sequence[Example], held_out: Sequence[Example]) -> list[Leak]:
    """For each held-out row the learned row most like it, where question and answer are nearly the same text."""
    rows = [*train, *held_out]
    texts = [_text(row) for row in rows]
    found = []
    for pair in near_pairs(texts):
        if pair.first < len(train) <= pair.second:
            found.append(
                Leak(
                    held_out=rows[pair.second].origin.id,
                    train=rows[pair.first].origin.id,
                    similarity=pair.similarity,
                    text=texts[pair.second],
                    train_text=texts[pair.first],
                )
            )
    return found


def _text(example: Example) -> str:
    """Everything said in a row, a turn a line."""
    if isinstance(example, Demonstration):
        return "\n".join(message.text for message in example.messages if message.role != "system")
    return str(example)
