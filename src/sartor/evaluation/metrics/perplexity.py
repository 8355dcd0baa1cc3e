"""Perplexity: among how many equally likely tokens the model seems to choose; from the model's losses, no text."""

from __future__ import annotations

import math
from collections.abc import Sequence

NAME = "perplexity"
RANGE = (1.0, float("inf"))
SIGNATURE = "exp-nll-per-reference-token|over-all-tokens|sartor-1"
HIGHER_IS_BETTER = False
MEANING = {
    "en": (
        "Among how many equally likely tokens the model seems to choose at each step; lower is better, 1 is certainty."
    ),
    "zh": "模型在每一步仿佛在多少个同样可能的 token 中选择；越低越好，1 表示完全确定。",
}


def losses(nll_sums: Sequence[float], label_tokens: Sequence[int]) -> tuple[float, tuple[float, ...]]:
    """exp of all nats over all label tokens; no value per row, since it is no mean over rows."""
    tokens = sum(label_tokens)
    return (math.exp(math.fsum(nll_sums) / tokens) if tokens else float("nan")), ()


EXAMPLES = (((2.0, 4.0), (2, 1), math.exp(2.0)),)
