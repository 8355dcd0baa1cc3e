"""What the rules read: examples as rows of plain texts, with their lengths in tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sartor.base.config import RunConfig
from sartor.base.types import (
    Document,
    Encoded,
    Example,
    Message,
    Origin,
    Pair,
    Preference,
    UnpairedSequence,
)


@dataclass(frozen=True, slots=True)
class LintRow:
    """One example's texts. `parts` are (field, text) pairs; `question` is everything before the last answer."""

    origin: Origin
    parts: tuple[tuple[str, str], ...]
    question: str
    answer: str
    held_out: bool = False

    @property
    def text(self) -> str:
        return f"{self.question}\n{self.answer}"


@dataclass(frozen=True)
class LintInput:
    """A dataset as the rules see it."""

    rows: list[LintRow]
    config: RunConfig = field(default_factory=RunConfig)
    control: tuple[str, ...] = ()
    """The strings of the tokenizer's control tokens."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Row id → tokens of its longest sequence, for rows that fit into cutoff_len."""
    overlong: dict[str, int] = field(default_factory=dict)
    """Row id → tokens, for rows longer than cutoff_len."""
    sequences: Mapping[str, int] = field(default_factory=dict)
    """Row id → into how many sequences it is encoded; 1 where it is not listed."""

    @cached_property
    def training_rows(self) -> list[LintRow]:
        return [row for row in self.rows if not row.held_out]


def row_of(example: Example, held_out: bool = False) -> LintRow:
    """The texts of an example."""
    if isinstance(example, Document):
        return LintRow(example.origin, (("text", example.text),), "", example.text, held_out)
    rejected: tuple[tuple[str, str], ...] = ()
    if isinstance(example, Preference):
        messages: tuple[Message, ...] = (*example.prompt, example.chosen)
        rejected = (("rejected", example.rejected.text),)
    else:
        messages = example.messages
    last = max((n for n, message in enumerate(messages) if message.role == "assistant"), default=len(messages))
    parts = tuple((f"{message.role} ({n})", message.text) for n, message in enumerate(messages, 1))
    question = "\n".join(message.text for message in messages[:last])
    answer = messages[last].text if last < len(messages) else ""
    return LintRow(example.origin, (*parts, *rejected), question, answer, held_out)


def length_of(encoded: Encoded) -> int:
    """Tokens of an encoded row; of a pair, those of the longer answer."""
    if isinstance(encoded, Pair):
        return max(len(encoded.chosen), len(encoded.rejected))
    return len(encoded.sequence if isinstance(encoded, UnpairedSequence) else encoded)
