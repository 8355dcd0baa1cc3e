"""How much a model prefers the better answer: log-probabilities of pairs and of judged answers, and rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from sartor.base.settings import MethodSettings
from sartor.base.types import Encoded, Pair, Score, TokenSequence, UnpairedSequence

if TYPE_CHECKING:
    from sartor.inference.engine import Engine, RowLoss
    from sartor.inference.weights import WeightSet

MARGIN, ACCURACY, CHOSEN_LOSS = "preference-margin", "preference-accuracy", "chosen-loss"
LIMITS: Mapping[str, tuple[float, float]] = {
    "loss": (0.0, math.inf),
    MARGIN: (-math.inf, math.inf),
    ACCURACY: (0.0, 100.0),
    CHOSEN_LOSS: (0.0, math.inf),
}
"""Metric → its lowest and highest value."""
CHANCE = 50.0
"""The accuracy, in percent, of preferring either answer at random."""

MARGIN_NATS, MARGIN_NATS_PER_TOKEN = 0.1, 0.01
"""The smallest change of a preference margin that is worth having, by default: odds that are a tenth higher. A fraction
of the base model's margin would depend on how long the answers are."""
Scores: TypeAlias = dict[str, Score]


def likelihood_scores(
    engine: Engine, rows: Sequence[Encoded], which: WeightSet, *, per_token: bool = False
) -> tuple[Scores, list[RowLoss]]:
    """What the model's probabilities of the rows' answers say, the deciding metric first; and the losses themselves.

    - answers: `loss`, nats per token.
    - pairs: `preference-margin`, ln p(chosen) − ln p(rejected); its difference between tuned and base is DPO's implicit
      reward margin / β (Rafailov et al. 2023, eq. 5). `per_token` divides each by its length, as the losses without a
      reference do. `preference-accuracy`, the percentage of pairs whose margin is above 0; `chosen-loss`.
    - judged answers: `preference-margin`, whose mean is the mean ln p of good answers minus that of bad ones.
    """
    pairs = [row for row in rows if isinstance(row, Pair)]
    judged = [row for row in rows if isinstance(row, UnpairedSequence)]
    if pairs:
        chosen = engine.losses([pair.chosen for pair in pairs], weights=which)
        rejected = engine.losses([pair.rejected for pair in pairs], weights=which)
        margins = [_logp(w, per_token) - _logp(r, per_token) for w, r in zip(chosen, rejected, strict=True)]
        return margin_scores(margins) | _score(CHOSEN_LOSS, [loss.per_token for loss in chosen]), chosen
    if judged:
        losses = engine.losses([row.sequence for row in judged], weights=which)
        good = [row.good for row in judged]
        return _score(MARGIN, balanced([_logp(loss, per_token) for loss in losses], good)), losses
    sequences = [row for row in rows if isinstance(row, TokenSequence)]
    losses = engine.losses(sequences, weights=which)
    if any(sequence.prompt_tokens for sequence in sequences):  # conversations; pieces of a document stay apart
        losses = losses_by_row(losses)
    return _score("loss", [loss.per_token for loss in losses]), losses


def losses_by_row(losses: Sequence[RowLoss]) -> list[RowLoss]:
    """One loss for each row: that of all its sequences together, where a conversation became several."""
    found: dict[str, RowLoss] = {}
    for loss in losses:
        before = found.get(loss.id)
        found[loss.id] = (
            loss
            if before is None
            else replace(
                before, nll_sum=before.nll_sum + loss.nll_sum, label_tokens=before.label_tokens + loss.label_tokens
            )
        )
    return list(found.values())


def margin_scores(margins: Sequence[float]) -> Scores:
    """The margins, and for each 100 where the better answer is preferred, else 0."""
    return _score(MARGIN, margins) | _score(ACCURACY, [100.0 * (margin > 0) for margin in margins])


def balanced(values: Sequence[float], good: Sequence[bool]) -> list[float]:
    """Values whose mean is the mean of the good rows minus that of the bad ones, however many there are of each."""
    counts = {True: sum(good), False: len(good) - sum(good)}
    return [(1 if is_good else -1) * value * len(good) / counts[is_good] for value, is_good in zip(values, good)]


def reward_margins(model: Any, pairs: Sequence[Pair], pad_id: int) -> list[float]:
    """reward(chosen) − reward(rejected) of each pair, by a reward model."""
    import torch

    from sartor.model.batch import collate_pairs
    from sartor.model.head import rewards

    margins: list[float] = []
    with torch.inference_mode():
        for number in range(len(pairs)):
            chosen, rejected = rewards(model, collate_pairs(pairs, [number], pad_id).to(model.device)).tolist()
            margins.append(chosen - rejected)
    return margins


def perplexity(losses: Sequence[RowLoss]) -> float:
    """The exponential of the mean loss over all tokens of the rows."""
    tokens = sum(loss.label_tokens for loss in losses)
    return math.exp(math.fsum(loss.nll_sum for loss in losses) / tokens) if tokens else math.nan


def margin_worth_having(metric: str, method: MethodSettings) -> float | None:
    """The default of the setting `margin` for a preference margin; None for every other metric."""
    if metric != MARGIN:
        return None
    return MARGIN_NATS_PER_TOKEN if is_per_token(method) else MARGIN_NATS


def is_per_token(method: MethodSettings) -> bool:
    """Whether the loss compares mean log-probabilities, as those without a reference do."""
    return method.stage == "dpo" and method.pref_loss in ("orpo", "simpo")


def _score(metric: str, values: Sequence[float]) -> Scores:
    """NaN becomes infinite, so that a lost row shows."""
    per_row = tuple(value if math.isfinite(value) else math.inf for value in values)
    mean = math.fsum(per_row) / len(per_row) if per_row else math.nan
    return {metric: Score(metric, mean, LIMITS[metric], len(per_row), "", not metric.endswith("loss"), per_row)}


def _logp(loss: RowLoss, per_token: bool) -> float:
    return -(loss.per_token if per_token else loss.nll_sum)
