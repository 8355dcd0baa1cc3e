"""The difference between two models in one metric over the same rows, and what may be claimed from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sartor.base.i18n import Text, ntr, tr
from sartor.evaluation import statistics
from sartor.evaluation.numbers import number
from sartor.evaluation.statistics import MIN_UNITS, Interval

Outcome = Literal["better", "worse", "same", "not_proven"]
LEVEL = 0.95
MARGIN_FRAC_OF_RANGE = 0.01
"""The default margin of a bounded metric: one point of a hundred."""
MARGIN_FRAC_OF_BASE = 0.02
"""The default margin of a loss, as a fraction of the base model's: 3.02 to 3.01 is no news to anybody."""
NOISE_FRAC = 1e-6
"""Differences below this fraction of the values are rounding: losses are sums of 32-bit numbers."""
NO_REFUSAL = Text("")


@dataclass(frozen=True, slots=True)
class Measure:
    """What is compared: a metric's name, direction and range, and the smallest difference worth having in it."""

    metric: str
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 100.0)
    """The lowest and the highest value; either may be infinite."""
    margin: float | None = None
    """None: 1% of the range; of an unbounded metric, 2% of the base model's value."""

    def margin_at(self, base: float) -> float:
        """The margin where the base model's value is `base`."""
        if self.margin is not None:
            return self.margin
        width = self.range[1] - self.range[0]
        return MARGIN_FRAC_OF_RANGE * width if math.isfinite(width) else MARGIN_FRAC_OF_BASE * abs(base)


LOSS = Measure("loss", False, (0.0, math.inf))
"""Nats per token of the reference answers."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Tuned minus base in one metric over the same rows, with its 95% interval.

    Interval and p are adjusted alike for the number of `comparisons` (Bonferroni), so that p <= 0.05 exactly where
    the interval excludes zero. `low`, `high` and `min_detectable_effect` are None where there is no interval.
    `min_detectable_effect` is the smallest true difference that this many rows show to exceed `margin` with 80% power.
    The interval covers the choice of rows, not the training seed.
    """

    metric: str
    higher_is_better: bool
    base: float
    tuned: float
    difference: float
    low: float | None
    high: float | None
    p: float
    n: int
    method: str
    margin: float = 0.0
    """The smallest difference worth having: better means that the whole interval is beyond it."""
    comparisons: int = 1
    min_detectable_effect: float | None = None
    se: float | None = None
    units: float = 0.0
    """The effective number of independent rows or sections: fewer than there are where sections differ in size."""
    freedom: float = 0.0
    improved: int = 0
    worsened: int = 0
    clusters: int | None = None
    refusal: Text = NO_REFUSAL
    """Why nothing may be claimed from the interval; empty where something may."""
    failed: tuple[str, ...] = ()
    """Ids of the rows with a value that is no finite number; they are in none of the figures."""

    @property
    def outcome(self) -> Outcome:
        """By this metric alone: where the whole interval is, beyond the margin or inside it."""
        if self.refusal or self.low is None or self.high is None:
            return "not_proven"
        low, high = self.gains
        if low > self.margin:
            return "better"
        if high < -self.margin:
            return "worse"
        return "same" if -self.margin <= low and high <= self.margin else "not_proven"

    @property
    def gain(self) -> float:
        """The difference with the sign chosen so that positive is better."""
        return self.difference if self.higher_is_better else -self.difference

    @property
    def gains(self) -> tuple[float, float]:
        """The interval of `gain`; infinite where there is none."""
        if self.low is None or self.high is None:
            return -math.inf, math.inf
        return (self.low, self.high) if self.higher_is_better else (-self.high, -self.low)

    def interval(self) -> Interval:
        """The statistics behind it."""
        return Interval(
            self.difference,
            self.low,
            self.high,
            self.p,
            self.se,
            self.min_detectable_effect,
            self.method,
            self.clusters,
            self.units,
            self.freedom,
            problem="few" if self.refusal else None,
        )


def compare_rows(
    base: Sequence[float],
    tuned: Sequence[float],
    measure: Measure,
    *,
    clusters: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
    comparisons: int = 1,
) -> Difference:
    """Tuned minus base over paired rows; pairs with a NaN on both sides (no reference) are left out.

    McNemar's test where rows only gain or lose the same amount (right or wrong answers), else the interval of
    `statistics.interval_of_mean`, over `clusters` (source sections) where given. Nothing is claimed, and `refusal`
    says why, where a value is no finite number, where the rows amount to fewer than ten independent units, or where a
    few of them carry the difference.

    Raises: ValueError when the lengths differ.
    """
    if len(base) != len(tuned) or (clusters is not None and len(clusters) != len(base)):
        raise ValueError(f"{len(base)} base values, {len(tuned)} tuned values")
    scored = [i for i, pair in enumerate(zip(base, tuned)) if not all(map(math.isnan, pair))]
    kept = [i for i in scored if math.isfinite(base[i]) and math.isfinite(tuned[i])]
    failed = tuple(ids[i] if ids else f"row {i + 1}" for i in sorted({*scored} - {*kept}))
    b, t = [float(base[i]) for i in kept], [float(tuned[i]) for i in kept]
    differences = _without_noise(b, t)
    found = _interval(
        differences, _sections(clusters, kept), measure, max(map(abs, (*b, *t)), default=0.0), comparisons
    )
    margin = measure.margin_at(_mean(b)) if kept else 0.0
    signed = differences if measure.higher_is_better else [-d for d in differences]
    effect = found.min_detectable_effect
    return Difference(
        metric=measure.metric,
        higher_is_better=measure.higher_is_better,
        base=_mean(b),
        tuned=_mean(t),
        difference=found.mean,
        low=found.low,
        high=found.high,
        p=min(1.0, comparisons * found.p),
        n=len(kept),
        method=found.method,
        margin=margin,
        comparisons=comparisons,
        min_detectable_effect=None if effect is None else margin + effect,
        se=found.se,
        units=found.units,
        freedom=found.freedom,
        improved=sum(d > 0 for d in signed),
        worsened=sum(d < 0 for d in signed),
        clusters=found.clusters,
        refusal=_refusal(found, failed),
        failed=failed,
    )


def _without_noise(base: Sequence[float], tuned: Sequence[float]) -> list[float]:
    """Tuned minus base; what is no larger than rounding is 0."""
    pairs = list(zip(base, tuned))
    return [0.0 if abs(t - b) <= NOISE_FRAC * max(abs(b), abs(t)) else t - b for b, t in pairs]


def _sections(clusters: Sequence[str | None] | None, kept: Sequence[int]) -> list[str] | None:
    """The section of each kept row (a row without one is its own), or None where all rows are independent."""
    if clusters is None:
        return None
    names = [clusters[i] or f"row {i}" for i in kept]
    return names if len(set(names)) < len(names) else None


def _interval(
    differences: Sequence[float], sections: list[str] | None, measure: Measure, largest: float, comparisons: int
) -> Interval:
    """The interval for one of `comparisons`; `largest` bounds an unbounded metric's differences where all are 0."""
    level = 1 - (1 - LEVEL) / comparisons
    sizes = {abs(d) for d in differences if d}
    width = measure.range[1] - measure.range[0]
    amount = max(sizes, default=width if math.isfinite(width) else largest)
    if not sizes or amount - min(sizes) <= NOISE_FRAC * amount:  # rows only gain, lose or keep one amount
        if sections is None:
            gained, lost = (sum(sign * d > 0 for d in differences) for sign in (1, -1))
            return statistics.mcnemar(gained, lost, len(differences), level=level).scaled(amount or 1.0)
        if len(set(differences)) == 1:  # sections without a difference between them: each counts once
            units = int(statistics.interval_of_mean(differences, sections).units)
            gained, lost = (units * (sign * differences[0] > 0) for sign in (1, -1))
            found = statistics.mcnemar(gained, lost, units, level=level).scaled(amount or 1.0)
            return replace(found, clusters=len(set(sections)))
    return statistics.interval_of_mean(differences, sections, level=level)


def _refusal(found: Interval, failed: Sequence[str]) -> Text:
    if failed:
        return ntr(
            "{count} row has a value that is no finite number ({names}), so nothing is claimed.",
            "{count} rows have values that are no finite numbers ({names}), so nothing is claimed.",
            count=len(failed),
            names=", ".join(failed[:5]) + (" …" if len(failed) > 5 else ""),
        )
    if found.problem == "few" and found.clusters is not None:
        return ntr(
            "{count} section counts as {units} of equal size; a claim needs {needed}. "
            "Hold out rows from more sections.",
            "{count} sections count as {units} of equal size; a claim needs {needed}. "
            "Hold out rows from more sections.",
            count=found.clusters,
            units=number(found.units),
            needed=MIN_UNITS,
        )
    if found.problem == "few":
        return tr("A claim needs at least {needed} held-out rows. Hold out more.", needed=MIN_UNITS)
    if found.problem == "lopsided":
        return tr(
            "A few rows carry most of the difference (skewness {skewness}), so nothing is claimed. Hold out more rows.",
            skewness=number(found.skewness, True),
        )
    return NO_REFUSAL


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
