"""ROUGE-2 on characters, clipped counts, texts cleaned first; a text too short for it scores as an exact match."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _corrected
from sartor.evaluation.metrics._words import content_characters

NAME = "rouge-2.char"
RANGE = (0.0, 100.0)
SIGNATURE = "rouge2|char|f|clipped|mean-of-rows|sartor-1"
MEANING = {
    "en": "ROUGE-2 on characters: the pairs of neighbouring characters shared with the reference.",
    "zh": "按字符计算的 ROUGE-2：与参考答案共有的相邻字符对。",
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair."""
    return _corrected.rouge_n(content_characters(prediction), content_characters(reference), 2)


EXAMPLES: Examples = (("是", "是", 100.0), ("abc", "abd", 50.0), ("是", "否", 0.0))
