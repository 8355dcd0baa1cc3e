"""ROUGE-2 on words, clipped counts, texts cleaned first; a text too short for it scores as an exact match."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _corrected
from sartor.evaluation.metrics._words import content_words

NAME = "rouge-2.word"
RANGE = (0.0, 100.0)
SIGNATURE = "rouge2|word|f|clipped|mean-of-rows|sartor-1"
MEANING = {
    "en": "ROUGE-2 on words: the pairs of neighbouring words shared with the reference.",
    "zh": "按词语计算的 ROUGE-2：与参考答案共有的相邻词语对。",
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair."""
    return _corrected.rouge_n(content_words(prediction), content_words(reference), 2)


EXAMPLES: Examples = (("是", "是", 100.0), ("the cat sat", "the cat ran", 50.0))
