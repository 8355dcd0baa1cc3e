"""No verdict from chance: base and tuned are equally good in the mean, in every shape that rows and sections take.

Each cell draws differences whose true mean is zero, and counts the claims. A cell passes with at most 5% of them (or
with none, because the claim is refused), with three standard errors of the count for the luck of the draw. What is not
among the cells, because no method can tell it: a kind of row so rare that the sample has none of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from sartor.evaluation.difference import LOSS, Measure, compare_rows
from sartor.evaluation.statistics import interval_of_mean
from sartor.evaluation.verdict import memorization

Floats = npt.NDArray[np.float64]
Random = np.random.Generator
ALPHA = 0.05

TAILS: dict[str, Callable[[Random, int], Floats]] = {
    "normal": lambda r, n: r.normal(0, 1, n),
    "uniform": lambda r, n: r.uniform(-1, 1, n),
    "t with 3 df": lambda r, n: r.standard_t(3, n),
    "t with 2 df": lambda r, n: r.standard_t(2, n),
    "exponential": lambda r, n: r.exponential(1, n) - 1,
    "chi-square with 1 df": lambda r, n: r.chisquare(1, n) - 1,
    "gamma of shape 0.25": lambda r, n: r.gamma(0.25, 1, n) - 0.25,
    "lognormal, sigma 1": lambda r, n: r.lognormal(0, 1, n) - math.exp(0.5),
    "lognormal, sigma 1.5": lambda r, n: r.lognormal(0, 1.5, n) - math.exp(1.125),
    "Pareto, 2.5": lambda r, n: r.pareto(2.5, n) - 1 / 1.5,
}
"""Differences of rows, or the effects of sections, with a true mean of zero."""
SECTIONS: dict[str, list[int]] = {
    "5 equal": [20] * 5,
    "9 equal": [10] * 9,
    "10 equal": [10] * 10,
    "12 equal": [10] * 12,
    "1000 and 9 of 1": [1000] + [1] * 9,
    "100 and 19 of 5": [100] + [5] * 19,
    "50 and 20 of 10": [50] + [10] * 20,
    "3 of 30 and 20 of 1": [30] * 3 + [1] * 20,
    "each a fifth larger": [int(3 * 1.2**i) for i in range(16)],
    "30 of 1 to 39": [int(size) for size in np.random.default_rng(0).integers(1, 40, 30)],
}


def at_most_alpha(claims: int, draws: int) -> bool:
    return claims / draws <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / draws)


def claims_of(draw: Callable[[], tuple[Floats, list[str] | None]], draws: int) -> int:
    """How many draws would be called better or worse if any difference at all were worth having."""
    claims = 0
    for _ in range(draws):
        differences, sections = draw()
        found = interval_of_mean(differences, sections)
        claims += found.problem is None and found.p <= ALPHA
    return claims


@pytest.mark.parametrize("rows", [6, 10, 12, 20, 50, 200])
@pytest.mark.parametrize("tail", TAILS)
def test_independent_rows(tail: str, rows: int, trials: int) -> None:
    random, draws = np.random.default_rng(rows), min(100 * trials, 10_000)
    assert at_most_alpha(claims_of(lambda: (TAILS[tail](random, rows), None), draws), draws)


@pytest.mark.parametrize("within", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("tail", ["normal", "t with 3 df", "exponential", "lognormal, sigma 1"])
@pytest.mark.parametrize("shape", SECTIONS)
def test_sections(shape: str, tail: str, within: float, trials: int) -> None:
    """`within` is how much of a row's variance its section explains; 1,000 rows beside nine gave 98% false claims."""
    random, draws = np.random.default_rng(len(shape)), min(60 * trials, 5_000)
    sizes = np.array(SECTIONS[shape])
    sections = np.repeat(np.arange(len(sizes)), sizes)
    names, scale = [str(section) for section in sections], float(np.std(TAILS[tail](random, 100_000)))

    def draw() -> tuple[Floats, list[str]]:
        effects, own = TAILS[tail](random, len(sizes)) / scale, TAILS[tail](random, len(sections)) / scale
        return math.sqrt(within) * effects[sections] + math.sqrt(1 - within) * own, names

    assert at_most_alpha(claims_of(draw, draws), draws)


@pytest.mark.parametrize("rows", [6, 10, 20, 60])
@pytest.mark.parametrize("changed", [0.1, 0.4, 1.0])
def test_right_and_wrong_answers(rows: int, changed: float, trials: int) -> None:
    random, draws, claims = np.random.default_rng(rows), min(100 * trials, 10_000), 0
    measure = Measure("exact-match", margin=0.0)
    for _ in range(draws):
        base = 100.0 * random.integers(0, 2, rows)
        tuned = np.where(random.random(rows) < changed, 100.0 * random.integers(0, 2, rows), base)
        claims += compare_rows(list(base), list(tuned), measure).outcome != "not_proven"
    assert at_most_alpha(claims, draws)


@pytest.mark.parametrize("comparisons", [3, 14])
def test_several_metrics_together(comparisons: int, trials: int) -> None:
    """At most 5% of comparisons claim anything about any metric, and their intervals all hold together in 95%."""
    random, draws, claims = np.random.default_rng(1), min(30 * trials, 2_000), 0
    for _ in range(draws):
        shared = random.normal(0, 1, 20)
        for _ in range(comparisons):
            values = list(shared + random.normal(0, 1, 20))
            measure = Measure("x", range=(0, math.inf), margin=0.0)
            if compare_rows([0.0] * 20, values, measure, comparisons=comparisons).outcome != "not_proven":
                claims += 1
                break
    assert at_most_alpha(claims, draws)


@pytest.mark.parametrize("tail", ["normal", "exponential", "lognormal, sigma 1", "t with 3 df"])
@pytest.mark.parametrize("rows", [12, 20, 60])
def test_intervals_hold_the_true_difference(tail: str, rows: int, trials: int) -> None:
    """Skewed differences were covered 0.38 to 0.92 of the time. At any true difference, not only at zero."""
    random, draws, missed = np.random.default_rng(rows), min(100 * trials, 10_000), 0
    for _ in range(draws):
        found = interval_of_mean(TAILS[tail](random, rows) + 0.7)
        assert found.low is not None
        assert found.high is not None
        missed += found.problem is None and not found.low <= 0.7 <= found.high
    assert at_most_alpha(missed, draws)


@pytest.mark.parametrize("gained", [0.05, 0.1, 0.3, 0.9])
def test_intervals_hold_the_true_fraction_gained(gained: float, trials: int) -> None:
    random, draws, missed = np.random.default_rng(3), min(100 * trials, 10_000), 0
    for _ in range(draws):
        tuned = 100.0 * (random.random(20) < gained)
        found = compare_rows([0.0] * 20, list(tuned), Measure("exact-match"))
        assert found.low is not None
        assert found.high is not None
        missed += not found.low - 1e-9 <= 100 * gained <= found.high + 1e-9
    assert at_most_alpha(missed, draws)


def test_a_clear_effect_is_still_found(trials: int) -> None:
    """Four of five times with 20 rows and a mean of 0.8 standard deviations; or 12 equal sections and 1.2."""
    random, draws = np.random.default_rng(4), max(200, min(100 * trials, 10_000))
    luck = 3 * math.sqrt(0.8 * 0.2 / draws)
    rows = claims_of(lambda: (random.normal(0.8, 1, 20), None), draws)
    assert rows / draws >= 0.85 - luck
    sections = np.repeat(np.arange(12), 10)
    names = [str(section) for section in sections]
    clear = claims_of(lambda: (random.normal(1.2, 1, 12)[sections] + random.normal(0, 0.5, 120), names), draws)
    assert clear / draws >= 0.75 - luck
    skewed = claims_of(lambda: (TAILS["exponential"](random, 60) + 0.8, None), draws)
    assert skewed / draws >= 0.95 - luck


def test_what_is_worth_having_is_not_claimed_from_what_is_not(trials: int) -> None:
    """The true difference is exactly the margin: better is claimed in at most 5% of draws."""
    random, draws, claims = np.random.default_rng(5), min(60 * trials, 5_000), 0
    for _ in range(draws):
        base = random.normal(3, 0.5, 20)
        tuned = base - random.normal(0.06, 0.1, 20)
        claims += (
            compare_rows(list(base), list(tuned), Measure("loss", False, LOSS.range, margin=0.06)).outcome == "better"
        )
    assert at_most_alpha(claims, draws)


@pytest.mark.parametrize("tail", ["normal", "exponential", "lognormal, sigma 1"])
@pytest.mark.parametrize("sections", [0, 4, 12])
def test_no_memorization_where_training_rows_gained_no_more(tail: str, sections: int, trials: int) -> None:
    random, draws, found = np.random.default_rng(8), min(40 * trials, 3_000), 0
    measure = Measure("loss", False, LOSS.range, 0.0)
    for _ in range(draws):
        gaps = []
        for rows in (20, 60):
            names = [f"s{i % sections}" for i in range(rows)] if sections else None
            effects = TAILS[tail](random, sections or rows)
            change = 0.3 * (effects[[i % sections for i in range(rows)]] if sections else effects)
            gaps.append(compare_rows([9.0] * rows, list(9.0 - 0.5 - change), measure, clusters=names))
        found += memorization(*gaps).found
    assert at_most_alpha(found, draws)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("both", [True, False])
def test_identical_models_with_a_broken_row_are_not_better(value: float, both: bool, trials: int) -> None:
    random = np.random.default_rng(6)
    for _ in range(10 * trials):
        base = list(random.normal(3, 0.5, 30))
        tuned = [*base]
        base[4] = value
        tuned[4] = value if both else tuned[4]
        found = compare_rows(base, tuned, LOSS)
        assert found.outcome == "not_proven"
        assert found.failed == (() if both and math.isnan(value) else ("row 5",))


@pytest.mark.parametrize("noise", [0.0, 1e-15, 1e-12, 1e-8])
def test_equal_up_to_rounding_is_no_difference(noise: float, trials: int) -> None:
    random = np.random.default_rng(7)
    for _ in range(10 * trials):
        base = list(random.normal(3, 0.5, 30))
        found = compare_rows(
            base, [value - noise * random.random() for value in base], Measure("loss", False, LOSS.range, 0.0)
        )
        assert (found.outcome, found.difference) == ("not_proven", 0.0)
