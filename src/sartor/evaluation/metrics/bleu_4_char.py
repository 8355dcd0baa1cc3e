"""BLEU-4 on characters with the effective order, as sacrebleu's `sentence_bleu` smooths it; texts cleaned first."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _corrected
from sartor.evaluation.metrics._words import content_characters

NAME = "bleu-4.char"
RANGE = (0.0, 100.0)
SIGNATURE = "bleu4|char|exp|effective-order|mean-of-sentences|sartor-1"
MEANING = {
    "en": (
        "BLEU-4 on characters: runs of 1 to 4 characters shared with the reference; only runs as long as the "
        "answer are asked for, so a perfect short answer scores 100."
    ),
    "zh": (
        "按字符计算的 BLEU-4：与参考答案共有的 1 至 4 个连续字符；只计答案长度所及的阶数，因"
        "此完全正确的短答案得 100 分。"
    ),
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair."""
    return _corrected.bleu(content_characters(prediction), content_characters(reference))


EXAMPLES: Examples = (("是", "是", 100.0), ("积极", "消极", 50.0), ("", "是", 0.0))
