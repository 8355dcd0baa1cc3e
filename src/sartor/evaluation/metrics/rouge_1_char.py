"""ROUGE-1 on characters, clipped counts, texts cleaned first; a text too short for it scores as an exact match."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _corrected
from sartor.evaluation.metrics._words import content_characters

NAME = "rouge-1.char"
RANGE = (0.0, 100.0)
SIGNATURE = "rouge1|char|f|clipped|mean-of-rows|sartor-1"
MEANING = {
    "en": (
        "ROUGE-1 on characters: the characters shared with the reference, in any order, each counted as often as "
        "it occurs."
    ),
    "zh": "按字符计算的 ROUGE-1：与参考答案共有的字符，不计顺序，按出现次数计。",
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair."""
    return _corrected.rouge_n(content_characters(prediction), content_characters(reference), 1)


EXAMPLES: Examples = (("积极", "消极", 50.0), ("是", "是", 100.0), ("", "是", 0.0))
