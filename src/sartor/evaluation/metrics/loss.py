"""Held-out loss: how surprised the model is by the reference answers; needs the model's losses, no generated text."""

from __future__ import annotations

from collections.abc import Sequence

NAME = "loss"
RANGE = (0.0, float("inf"))
SIGNATURE = "nll-per-reference-token|nat|mean-of-rows|sartor-1"
HIGHER_IS_BETTER = False
MEANING = {
    "en": "How surprised the model is by each token of the reference answers; lower is better, 0 is certainty.",
    "zh": "模型对参考答案中每个 token 的“意外程度”；越低越好，0 表示完全确定。",
}


def losses(nll_sums: Sequence[float], label_tokens: Sequence[int]) -> tuple[float, tuple[float, ...]]:
    """The mean over rows of nats per label token, and each row's."""
    rows = tuple(total / count for total, count in zip(nll_sums, label_tokens, strict=True))
    return (sum(rows) / len(rows) if rows else float("nan")), rows


EXAMPLES = (((2.0, 3.0), (2, 1), 2.0),)
