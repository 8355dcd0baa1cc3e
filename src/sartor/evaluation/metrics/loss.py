"""Loss and perplexity on the reference answers, from the model's losses; no text is generated for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sartor.base.i18n import tr
from sartor.evaluation.metrics import LossMetric


class _Loss(LossMetric):
    def score(self, nll_sums: Sequence[float], label_tokens: Sequence[int]) -> tuple[float, tuple[float, ...]]:
        """The mean over rows of nats per label token, and each row's."""
        rows = tuple(total / count for total, count in zip(nll_sums, label_tokens, strict=True))
        return (sum(rows) / len(rows) if rows else math.nan), rows


class _Perplexity(LossMetric):
    def score(self, nll_sums: Sequence[float], label_tokens: Sequence[int]) -> tuple[float, tuple[float, ...]]:
        """exp of all nats over all label tokens; no values per row, because it is not a mean over rows."""
        tokens = sum(label_tokens)
        return (math.exp(math.fsum(nll_sums) / tokens) if tokens else math.nan), ()


PLUGINS = (
    _Loss(
        name="loss",
        signature="nll-per-reference-token|nat|mean-of-rows|sartor-1",
        meaning=tr(
            "How surprised the model is by each token of the reference answers, in nats. Lower is better; 0 is "
            "certainty."
        ),
        range=(0.0, math.inf),
        higher_is_better=False,
        examples=(((2.0, 3.0), (2, 1), 2.0),),
    ),
    _Perplexity(
        name="perplexity",
        signature="exp-nll-per-reference-token|over-all-tokens|sartor-1",
        meaning=tr(
            "How many equally likely tokens the model seems to choose from at each step. Lower is better; 1 is "
            "certainty."
        ),
        range=(1.0, math.inf),
        higher_is_better=False,
        examples=(((2.0, 4.0), (2, 1), math.exp(2.0)),),
    ),
)
