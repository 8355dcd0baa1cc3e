"""ROUGE-1 as LLaMA-Factory computes it, to compare with its numbers; `rouge-1.word` is the corrected one."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _llama_factory

NAME = "rouge-1"
RANGE = (0.0, 100.0)
SIGNATURE = "rouge1|jieba|f|sets|mean-of-rows|lf-0.9.5"
AS_IT_STANDS = True
MEANING = {
    "en": (
        "LLaMA-Factory's ROUGE-1: the distinct words shared with the reference, in any order (F of precision and "
        "recall)."
    ),
    "zh": ("LLaMA-Factory 的 ROUGE-1：与参考答案共有的不同词语，不计顺序（精确率与召回率的 F 值）。"),
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair, rounded to four decimals."""
    return _llama_factory.rouge(prediction, reference)[0]


EXAMPLES: Examples = (("积极", "消极", 0.0), ("你好", "\n\n你好", 66.6667), ("The cat sat.", "The cat sat.", 100.0))
