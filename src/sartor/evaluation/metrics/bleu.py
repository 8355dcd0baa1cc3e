"""Corpus BLEU by sacrebleu, the number papers report; Chinese is cut into characters where it dominates."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from sartor.evaluation.metrics import mostly_chinese

NAME = "bleu"
RANGE = (0.0, 100.0)
MEANING = {
    "en": "Corpus BLEU by sacrebleu, the number papers report: shared runs of 1 to 4 words over all rows together.",
    "zh": ("sacrebleu 的语料级 BLEU，即论文中报告的数值：所有行合计的 1 至 4 个连续词的重合。"),
}


def corpus(predictions: Sequence[str], references: Sequence[str]) -> float:
    """0–100 over all pairs at once."""
    return min(100.0, float(_bleu(_tokenizer(references)).corpus_score(list(predictions), [list(references)]).score))


def signature(references: Sequence[str]) -> str:
    """sacrebleu's own signature of what was computed."""
    metric = _bleu(_tokenizer(references))
    metric.corpus_score([""], [[""]])
    return str(metric.get_signature())


def _tokenizer(references: Sequence[str]) -> str:
    return "zh" if mostly_chinese(references) else "13a"


@functools.cache
def _bleu(tokenize: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenize)


SIGNATURE = "sacrebleu"
EXAMPLES = (("the cat sat on the mat", "the cat sat on the mat", 100.0), ("", "a", 0.0))
