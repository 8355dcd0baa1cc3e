"""BLEU-4 on words with the effective order, as sacrebleu's `sentence_bleu` smooths it; texts cleaned first."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _corrected
from sartor.evaluation.metrics._words import content_words

NAME = "bleu-4.word"
RANGE = (0.0, 100.0)
SIGNATURE = "bleu4|word|exp|effective-order|mean-of-sentences|sartor-1"
MEANING = {
    "en": (
        "BLEU-4 on words: runs of 1 to 4 words shared with the reference; only runs as long as the answer are "
        "asked for, so a perfect short answer scores 100."
    ),
    "zh": (
        "按词语计算的 BLEU-4：与参考答案共有的 1 至 4 个连续词语；只计答案长度所及的阶数，因"
        "此完全正确的短答案得 100 分。"
    ),
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair."""
    return _corrected.bleu(content_words(prediction), content_words(reference))


EXAMPLES: Examples = (("是", "是", 100.0), ("积极", "消极", 0.0), ("a b c d", "a b c d", 100.0))
