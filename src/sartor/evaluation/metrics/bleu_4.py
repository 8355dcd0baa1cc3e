"""BLEU-4 as LLaMA-Factory computes it, to compare with its numbers; `bleu-4.char` is the corrected one."""

from __future__ import annotations

from sartor.evaluation.metrics import Examples, _llama_factory

NAME = "bleu-4"
RANGE = (0.0, 100.0)
SIGNATURE = "bleu4|char|method3|mean-of-sentences|lf-0.9.5"
AS_IT_STANDS = True
MEANING = {
    "en": (
        "LLaMA-Factory's BLEU-4: runs of 1 to 4 characters that the answer shares with the reference, blanks "
        "included. Short answers score low even when perfect (one right character: 35.36)."
    ),
    "zh": (
        "LLaMA-Factory 的 BLEU-4：答案与参考答案共有的 1 至 4 个连续字符（含空"
        "格）。很短的答案即使完全正确也得分很低（一个字全对：35.36）。"
    ),
}


def score(prediction: str, reference: str) -> float:
    """0–100 for one pair, rounded to four decimals."""
    return _llama_factory.bleu(prediction, reference)


EXAMPLES: Examples = (
    ("是", "是", 35.3553),
    ("积极", "消极", 29.7302),
    ("a b c d", "a b c d", 100.0),
    ("", "你好", 0.0),
)
