"""ROUGE-L on words, clipped counts, texts cleaned first; a text too short for it scores as an exact match."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _corrected
from sartor.evaluation.metrics._words import content_words

NAME = "rouge-l.word"
RANGE = (0.0, 100.0)
SIGNATURE = "rougeL|word|f|lcs|mean-of-rows|sartor-1"
MEANING = {
    "en": "ROUGE-L on words: the longest series of words that stand in both texts in the same order.",
    "zh": "按词语计算的 ROUGE-L：两段文字中按相同顺序出现的最长词语序列。",
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair."""
    return _corrected.rouge_l(content_words(prediction), content_words(reference))


EXAMPLES: Examples = (("the cat sat", "the cat sat", 100.0), ("cat the", "the cat", 50.0))
