"""ROUGE-L as LLaMA-Factory computes it, to compare with its numbers; `rouge-l.word` is the corrected one."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _llama_factory

NAME = "rouge-l"
RANGE = (0.0, 100.0)
SIGNATURE = "rougeL|jieba|f|lcs|mean-of-rows|lf-0.9.5"
AS_IT_STANDS = True
MEANING = {
    "en": "LLaMA-Factory's ROUGE-L: the longest series of words that stand in both texts in the same order.",
    "zh": "LLaMA-Factory 的 ROUGE-L：两段文字中按相同顺序出现的最长词语序列。",
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair, rounded to four decimals."""
    return _llama_factory.rouge(prediction, reference)[2]


EXAMPLES: Examples = (("A", "A", 100.0), ("你好", "\n\n你好", 66.6667))
