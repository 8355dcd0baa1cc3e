"""Statistics of paired rows: an interval and a p that always agree, and when the rows are too few for either.

Rows of one section are not independent, so a section is one unit. Every interval here was simulated over skewed,
heavy-tailed, tied and unequal units (`tests/attack/test_statistics.py`); docs/benchmarks.md has the rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

MIN_UNITS = 10
"""With fewer independent units of equal weight no claim is made: at 6, the rate of false ones was up to 15%, not 5%."""
UNITS_PER_SKEWNESS = 10
"""Units needed for each 1.0 of sample skewness: with fewer, a long tail that was hardly sampled decides."""
HIDDEN_SKEWNESS = (1.3, 10.0)
"""A sample's skewness is multiplied by 1.3 + 10 / units, because small samples show less of it than there is.

Without that, Hall's interval gave 7% false claims for lognormal rows at 10 to 20 units, and 8% for heavier tails."""

Floats = npt.NDArray[np.float64]
Problem = Literal["few", "lopsided"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, its interval, and the p of "the mean is zero"; the interval excludes 0 exactly when p <= 1 - level.

    `se` is the standard error, `min_detectable_effect` the smallest true mean detected with 80% power. The ends are
    None where there is no interval. `units` is the effective number of independent rows or sections (Kish), `freedom`
    the degrees of freedom, `problem` why nothing may be claimed from the interval.
    """

    mean: float
    low: float | None
    high: float | None
    p: float
    se: float | None
    min_detectable_effect: float | None
    method: str
    clusters: int | None = None
    units: float = 0.0
    freedom: float = 0.0
    skewness: float = 0.0
    problem: Problem | None = None

    def scaled(self, factor: float) -> Interval:
        """The same in another unit (percent for fractions)."""
        low, high, se, effect = (
            None if value is None else factor * value
            for value in (self.low, self.high, self.se, self.min_detectable_effect)
        )
        return replace(self, mean=factor * self.mean, low=low, high=high, se=se, min_detectable_effect=effect)


def interval_of_mean(
    values: Sequence[float], clusters: Sequence[str] | None = None, *, level: float = 0.95
) -> Interval:
    """The mean of per-row values; `clusters`, where given, are the sections that the rows come from.

    The standard error is CR2 with Satterthwaite's degrees of freedom (Bell & McCaffrey 2002; Pustejovsky & Tipton
    2018), under the working model that the rows of a section say one thing: under the usual one, of independent rows,
    a section of 1,000 rows beside nine of one gave 31% false claims. For rows by themselves both are Student's t. The
    interval joins that one with Hall's (1992, "On the removal of skewness by transformation"), and p is the larger.
    """
    sums, sizes = _grouped(np.asarray(values, np.float64), clusters)
    units, rows = len(sums), len(values)
    count = None if clusters is None else units
    if rows == 0:
        return Interval(math.nan, None, None, 1.0, None, None, "none", count, problem="few")
    shares = sizes / rows
    effective = float(rows**2 / (sizes**2).sum())
    mean = float(sums.sum() / rows)
    if units < 3:
        return Interval(mean, None, None, 1.0, None, None, "none", count, effective, problem="few")
    parts, freedom = _cr2(sums / sizes - mean, shares)
    with np.errstate(over="ignore", invalid="ignore"):  # values near the largest float have no finite variance
        se = float(np.sqrt((parts**2).sum()))
    method = f"cr2+hall|{'rows' if clusters is None else 'sections'}|df {freedom:.4g}"
    if not math.isfinite(se) or se <= 0:
        return Interval(mean, None, None, 1.0, None, None, "none", count, effective, problem="few")
    skewness = float(units / ((units - 1) * (units - 2)) * ((parts / _deviation(parts)) ** 3).sum())
    hall = _Hall((HIDDEN_SKEWNESS[0] + HIDDEN_SKEWNESS[1] / effective) * skewness, units)
    reach = float(special.stdtrit(freedom, 0.5 + level / 2))
    nearest = min(abs(mean) / se, abs(hall.statistic(mean / se)))
    ends = [mean - se * t for bound in (-reach, reach) for t in (bound, hall.inverse(bound))]
    problem: Problem | None = None
    if effective < MIN_UNITS:
        problem = "few"
    elif abs(skewness) > effective / UNITS_PER_SKEWNESS:
        problem = "lopsided"
    return Interval(
        mean,
        min(ends),
        max(ends),
        float(2 * special.stdtr(freedom, -nearest)),
        se,
        (reach + float(special.stdtrit(freedom, 0.8))) * se,
        method,
        count,
        effective,
        freedom,
        skewness,
        problem,
    )


def mcnemar(gained: int, lost: int, rows: int, *, level: float = 0.95) -> Interval:
    """Rows gained, lost or unchanged, each by the same amount: the exact test, and an interval of the fraction gained.

    The interval joins that of the exact test (Clopper–Pearson over the rows that differ) with the score interval for
    paired fractions, which also allows for how many differ; p is the larger of the two. Sources: Q. McNemar,
    Psychometrika 12 (1947); T. Tango, Statist. Med. 17 (1998).
    """
    if not rows:
        return Interval(math.nan, None, None, 1.0, None, None, "none", problem="few")
    differing, mean, alpha = gained + lost, (gained - lost) / rows, 1 - level
    reach = float(special.ndtri(1 - alpha / 2))
    rare = float(1 - (alpha / 2) ** (1 / rows))
    share = differing / rows
    low, high, p = -rare, rare, 1.0
    if differing:
        certain_low = 0.0 if not gained else float(special.betaincinv(gained, lost + 1, alpha / 2))
        certain_high = 1.0 if not lost else float(special.betaincinv(gained + 1, lost, 1 - alpha / 2))
        score_low, score_high = (_tango(gained, lost, rows, bound) for bound in (reach, -reach))
        low = min((2 * certain_low - 1) * share, score_low)
        high = max((2 * certain_high - 1) * share, score_high)
        exact = min(1.0, 2 * float(special.bdtr(min(gained, lost), differing, 0.5)))
        p = max(exact, float(2 * special.ndtr(-abs(gained - lost) / math.sqrt(differing))))
    se = math.sqrt(max(differing - (gained - lost) ** 2 / rows, 0.0)) / rows
    smallest = (reach + float(special.ndtri(0.8))) * math.sqrt(share / rows) if differing else rare
    problem: Problem | None = "few" if rows < MIN_UNITS else None
    return Interval(
        mean, low, high, p, se, smallest, "mcnemar|exact+score", units=rows, freedom=max(1, rows - 1), problem=problem
    )


def welch(one: Interval, other: Interval, *, level: float = 0.95) -> Interval:
    """The difference of two independent means (training rows and held-out rows), by Welch's t."""
    mean = one.mean - other.mean
    problem = one.problem or other.problem
    if not one.se and not other.se:
        return Interval(mean, None, None, 1.0, None, None, "none", problem=problem)
    a, b = (one.se or 0.0) ** 2, (other.se or 0.0) ** 2
    freedom = (a + b) ** 2 / (a**2 / max(1.0, one.freedom) + b**2 / max(1.0, other.freedom))
    se = math.sqrt(a + b)
    reach = float(special.stdtrit(freedom, 0.5 + level / 2)) * se
    p = float(2 * special.stdtr(freedom, -abs(mean) / se))
    smallest = reach + float(special.stdtrit(freedom, 0.8)) * se
    return Interval(mean, mean - reach, mean + reach, p, se, smallest, "welch", freedom=freedom, problem=problem)


@dataclass(frozen=True, slots=True)
class _Hall:
    """Hall's monotone cubic of a t statistic, which takes the skewness out of it; `skewness` 0 leaves t as it is."""

    skewness: float
    units: int

    def statistic(self, t: float) -> float:
        """The transformed statistic, in the scale of t."""
        g, root = self.skewness, math.sqrt(self.units)
        u = t / root
        return root * (u + g * u**2 / 3 + g**2 * u**3 / 27 + g / (6 * self.units))

    def inverse(self, statistic: float) -> float:
        """The t with that transformed statistic."""
        g, root = self.skewness, math.sqrt(self.units)
        if abs(g) < 1e-6:
            return statistic
        return root * 3 / g * (math.cbrt(1 + g * (statistic / root - g / (6 * self.units))) - 1)


def _grouped(values: Floats, clusters: Sequence[str] | None) -> tuple[Floats, Floats]:
    """The sum and the number of rows of each unit."""
    if clusters is None:
        return values, np.ones(len(values))
    _, unit = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    return np.bincount(unit, values).astype(np.float64), np.bincount(unit).astype(np.float64)


def _cr2(residuals: Floats, shares: Floats) -> tuple[Floats, float]:
    """(each unit's part of the mean's error, scaled so that their squares add up to its variance; freedom).

    `residuals` are the units' means minus the mean over rows, `shares` the units' shares of the rows.
    """
    total = float((shares**2).sum())
    weights = shares / np.sqrt(1 - 2 * shares + total)
    squares = weights**2
    zeroth, first, second = (float((squares * shares**power).sum()) for power in range(3))
    # The parts are P u for the units' errors u, where P = diag(weights) (I - 1 shares'). Satterthwaite's freedom is
    # tr(PP')^2 / ||PP'||^2; here tr(PP') = total, and (PP')_gh = w_g w_h ([g=h] - s_g - s_h + total).
    norm = (total * zeroth) ** 2 + 2 * zeroth * second + 2 * first**2 - 4 * total * zeroth * first
    norm += float((squares**2 * (1 + 2 * (total - 2 * shares))).sum())
    return weights * residuals, total**2 / norm


def _deviation(parts: Floats) -> float:
    return float(np.sqrt((parts**2).sum() / (len(parts) - 1)))


def _tango(gained: int, lost: int, rows: int, bound: float) -> float:
    """Where the score statistic of the difference of paired fractions is `bound`; it falls as the difference rises."""

    def statistic(difference: float) -> float:
        b = (2 * rows + lost - gained) * difference - gained - lost
        c = -lost * difference * (1 - difference)
        rare = (math.sqrt(max(b * b - 8 * rows * c, 0.0)) - b) / (4 * rows)
        variance = rows * (2 * rare + difference * (1 - difference))
        distance = gained - lost - rows * difference
        return (
            distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0
        )

    return _solve(statistic, bound)


def _solve(falling: Callable[[float], float], target: float) -> float:
    """Where a falling function on −1–1 reaches `target`, by bisection."""
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
