"""Corpus chrF by sacrebleu: shared runs of 1 to 6 characters, recall counted twice; good for short answers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

NAME = "chrf"
RANGE = (0.0, 100.0)
MEANING = {
    "en": (
        "Corpus chrF by sacrebleu: shared runs of 1 to 6 characters over all rows; forgives small changes of words."
    ),
    "zh": ("sacrebleu 的语料级 chrF：所有行合计的 1 至 6 个连续字符的重合；对词形的小变化较宽容。"),
}


def corpus(predictions: Sequence[str], references: Sequence[str]) -> float:
    """0–100 over all pairs at once."""
    return min(100.0, float(_chrf().corpus_score(list(predictions), [list(references)]).score))


def signature(references: Sequence[str]) -> str:
    """sacrebleu's own signature of what was computed."""
    metric = _chrf()
    metric.corpus_score([""], [[""]])
    return str(metric.get_signature())


@functools.cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


SIGNATURE = "sacrebleu"
EXAMPLES = (("你好吗", "你好吗", 100.0), ("", "a", 0.0))
