"""ROUGE-L on characters, clipped counts, texts cleaned first; a text too short for it scores as an exact match."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _corrected
from sartor.evaluation.metrics._words import content_characters

NAME = "rouge-l.char"
RANGE = (0.0, 100.0)
SIGNATURE = "rougeL|char|f|lcs|mean-of-rows|sartor-1"
MEANING = {
    "en": "ROUGE-L on characters: the longest series of characters that stand in both texts in the same order.",
    "zh": "按字符计算的 ROUGE-L：两段文字中按相同顺序出现的最长字符序列。",
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair."""
    return _corrected.rouge_l(content_characters(prediction), content_characters(reference))


EXAMPLES: Examples = (("a b c", "abc", 100.0), ("acb", "abc", 200 / 3))
