"""ROUGE-1 on words, clipped counts, texts cleaned first; a text too short for it scores as an exact match."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _corrected
from sartor.evaluation.metrics._words import content_words

NAME = "rouge-1.word"
RANGE = (0.0, 100.0)
SIGNATURE = "rouge1|word|f|clipped|mean-of-rows|sartor-1"
MEANING = {
    "en": "ROUGE-1 on words: the words shared with the reference, in any order, each counted as often as it occurs.",
    "zh": "按词语计算的 ROUGE-1：与参考答案共有的词语，不计顺序，按出现次数计。",
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair."""
    return _corrected.rouge_n(content_words(prediction), content_words(reference), 1)


EXAMPLES: Examples = (("积极", "消极", 0.0), ("the the", "the", 200 / 3), ("", "a", 0.0))
