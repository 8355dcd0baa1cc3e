"""Leaks: held-out rows that are nearly the same as a training row, so that their scores show memory, not skill."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sartor.base.types import Document, Example, Preference
from sartor.checks.near_duplicates import near_pairs


@dataclass(frozen=True, slots=True)
class Leak:
    """A held-out row and the training row that is nearly the same, by their ids, with the texts compared."""

    held_out: str
    train: str
    similarity: float
    """0–1; 1 is the same text."""
    text: str
    train_text: str


def find_leaks(train: Iterable[Example], held_out: Iterable[Example]) -> list[Leak]:
    """For each held-out row the most similar training row, if it is nearly the same; oversampled rows count once."""
    training_rows, held_out_rows = _distinct(train), _distinct(held_out)
    rows = [*training_rows, *held_out_rows]
    texts = [_text(row) for row in rows]
    return [
        Leak(rows[p.second].origin.id, rows[p.first].origin.id, p.similarity, texts[p.second], texts[p.first])
        for p in near_pairs(texts, known=len(training_rows))
        if p.second >= len(training_rows)
    ]


def _distinct(rows: Iterable[Example]) -> Sequence[Example]:
    return list({row.origin.id: row for row in rows}.values())


def _text(example: Example) -> str:
    """All turns of a row, one a line, without the system prompt: rows that share a long one would all look alike."""
    if isinstance(example, Document):
        return example.text
    messages = (*example.prompt, example.chosen) if isinstance(example, Preference) else example.messages
    return "\n".join(message.text for message in messages if message.role != "system")
