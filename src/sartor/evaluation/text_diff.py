"""Which words of a text its reference has too, in the same order; for display, not for scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import LCSseq

from sartor.evaluation.metrics._words import jieba_words

MAX_WORDS = 2000
"""Longer texts are one unmarked span: nobody reads them word by word, and the alignment takes quadratic time."""


@dataclass(frozen=True, slots=True)
class DiffSpan:
    """A run of words that the other text has too (`shared`), or lacks."""

    text: str
    shared: bool


def diff_words(text: str, other: str) -> list[DiffSpan]:
    """`text` as spans whose joined texts are `text`; the comparison ignores case."""
    words, others = jieba_words(text), jieba_words(other)
    if max(len(words), len(others)) > MAX_WORDS:
        return [DiffSpan(text, False)] if text else []
    shared = _aligned([word.lower() for word in words], [word.lower() for word in others])
    spans: list[DiffSpan] = []
    for index, word in enumerate(words):
        if spans and spans[-1].shared == shared[index]:
            spans[-1] = DiffSpan(spans[-1].text + word, shared[index])
        else:
            spans.append(DiffSpan(word, shared[index]))
    return spans


def _aligned(words: Sequence[str], others: Sequence[str]) -> list[bool]:
    """For each word, whether it is in the longest common subsequence."""
    shared = [False] * len(words)
    for code in LCSseq.opcodes(words, others):
        if code.tag == "equal":
            for position in range(code.src_start, code.src_end):
                shared[position] = True
    for position, word in enumerate(words):  # a space or comma between two words that differ is no match
        if shared[position] and not any(character.isalnum() for character in word):
            before = position > 0 and shared[position - 1]
            after = position + 1 < len(words) and shared[position + 1]
            shared[position] = before and after
    return shared
