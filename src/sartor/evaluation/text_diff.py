"""Marking: which words of an answer stand in the reference too, in the same order; for eyes, not for scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import LCSseq

from sartor.evaluation.metrics._words import jieba_words

MAX_WORDS = 2000
"""Longer texts are shown without marks: nobody reads them word by word, and the alignment grows with the square."""


@dataclass(frozen=True, slots=True)
class DiffSpan:
    """A run of words that the other text has too (`shared`), or has not."""

    text: str
    shared: bool


def diff_words(text: str, other: str) -> list[DiffSpan]:
    """`text` in stretches whose joined texts are `text`; upper and lower case count as the same."""
    words, others = jieba_words(text), jieba_words(other)
    if max(len(words), len(others)) > MAX_WORDS:
        return [DiffSpan(text, False)] if text else []
    shared = _aligned([word.lower() for word in words], [word.lower() for word in others])
    stretches: list[DiffSpan] = []
    for number, word in enumerate(words):
        if stretches and stretches[-1].shared == shared[number]:
            stretches[-1] = DiffSpan(stretches[-1].text + word, shared[number])
        else:
            stretches.append(DiffSpan(word, shared[number]))
    return stretches


def _aligned(words: Sequence[str], others: Sequence[str]) -> list[bool]:
    shared = [False] * len(words)
    for code in LCSseq.opcodes(words, others):
        if code.tag == "equal":
            for position in range(code.src_start, code.src_end):
                shared[position] = True
    for position, word in enumerate(words):  # a blank or a comma alone between two strangers says nothing
        if shared[position] and not any(character.isalnum() for character in word):
            before = position > 0 and shared[position - 1]
            after = position + 1 < len(words) and shared[position + 1]
            shared[position] = before and after
    return shared
