"""ROUGE-2 as LLaMA-Factory computes it, to compare with its numbers; `rouge-2.word` is the corrected one."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _llama_factory

NAME = "rouge-2"
RANGE = (0.0, 100.0)
SIGNATURE = "rouge2|jieba|f|sets|mean-of-rows|lf-0.9.5"
AS_IT_STANDS = True
MEANING = {
    "en": (
        "LLaMA-Factory's ROUGE-2: the distinct pairs of neighbouring words shared with the reference. A perfect "
        "one-word answer scores 0."
    ),
    "zh": ("LLaMA-Factory 的 ROUGE-2：与参考答案共有的不同相邻词对。只有一个词的答案即使完全正确也得 0 分。"),
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair, rounded to four decimals."""
    return _llama_factory.rouge(prediction, reference)[1]


EXAMPLES: Examples = (("是", "是", 0.0), ("The cat sat.", "The cat sat.", 100.0))
