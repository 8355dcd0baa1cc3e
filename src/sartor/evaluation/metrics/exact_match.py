"""Exact match: the cleaned answer equals the cleaned reference but for runs of blanks; right or wrong, no more."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples

NAME = "exact-match"
RANGE = (0.0, 100.0)
SIGNATURE = "exact|blanks-collapsed|case-kept|mean-of-rows|sartor-1"
MEANING = {
    "en": "The share of answers that equal the reference, letter for letter (blanks aside).",
    "zh": "与参考答案逐字相同（空白除外）的答案所占的百分比。",
}


def score(prediction: str, reference: str) -> float:
    """100 or 0."""
    return 100.0 if prediction.split() == reference.split() else 0.0


EXAMPLES: Examples = (("a  b", "a b", 100.0), ("A b", "a b", 0.0), ("", "a", 0.0))
