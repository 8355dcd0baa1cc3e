"""Intervals agree with their p, equal scipy where scipy has the same, and are refused where they would deceive."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import xlogy

from sartor.evaluation import statistics
from sartor.evaluation.statistics import MIN_UNITS, interval_of_mean, mcnemar, welch

values = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(st.lists(values, min_size=3, max_size=40), st.sampled_from([1, 2, 14, 60]), st.integers(1, 20))
def test_p_is_small_exactly_where_the_interval_excludes_zero(
    rows: list[float], comparisons: int, sections: int
) -> None:
    alpha = 0.05 / comparisons
    for clusters in (None, [str(i % sections) for i in range(len(rows))]):
        found = interval_of_mean(rows, clusters, level=1 - alpha)
        if found.low is not None and found.high is not None and abs(found.p / alpha - 1) > 1e-6:
            assert (found.p <= alpha) == (found.low > 0 or found.high < 0)
            assert found.low <= found.mean <= found.high


def test_p_and_interval_meet_at_the_edge() -> None:
    """Shift data until p crosses 0.05: the interval must touch zero at the same shift."""
    random = np.random.default_rng(0)
    for trial in range(30):
        values = random.exponential(1, 15) if trial % 2 else random.choice([-1.0, 0.0, 0.0, 2.0], 15)
        for shift in np.linspace(-2, 2, 41):
            found = interval_of_mean(values - shift)
            assert found.low is not None
            assert found.high is not None
            assert (found.p <= 0.05) == (found.low > 0 or found.high < 0), (trial, shift, found)


def test_symmetric_rows_get_students_t() -> None:
    rows = [1.0, -0.4, 0.3, 1.4, 0.8, -0.6, 2.0, -0.2, 0.1, 1.6, 0.4, 2.4, -1.2]
    mirrored = [*rows, *(2 * np.mean(rows) - np.array(rows))]
    found, wanted = interval_of_mean(mirrored), stats.ttest_1samp(mirrored, 0)
    ends = wanted.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.freedom == pytest.approx(25)


def test_no_interval_is_much_wider_than_students_t(trials: int) -> None:
    """Twelve rows, eleven of them unchanged, once got -10.6 … +17.8 where Student's t gives 3.6 ± 7.9."""
    random, ratios = np.random.default_rng(7), []
    for trial in range(20 * trials):
        rows = random.normal(0, 1, 12) if trial % 2 else random.exponential(1, 12)
        found, ends = interval_of_mean(rows), stats.ttest_1samp(rows, 0).confidence_interval()
        assert found.low is not None
        assert found.high is not None
        assert found.low <= ends.low + 1e-9
        assert found.high >= ends.high - 1e-9
        ratios.append(_width_ratio(rows))
        assert ratios[-1] < 2.6
    assert np.mean(ratios[1::2]) < 1.7
    assert np.mean([_width_ratio(random.normal(0, 1, 60)) for _ in range(100)]) < 1.05
    extreme = interval_of_mean([0.0] * 11 + [43.0])
    assert extreme.problem == "lopsided"
    assert extreme.high is not None
    assert extreme.high < 3.6 + 2.5 * 7.9


def _width_ratio(rows: Sequence[float]) -> float:
    found, ends = interval_of_mean(rows), stats.ttest_1samp(rows, 0).confidence_interval()
    assert found.low is not None
    assert found.high is not None
    return float((found.high - found.low) / (ends.high - ends.low))


def test_cr2_equals_its_definition() -> None:
    """Bell and McCaffrey's matrices, with sections whose rows say one thing, worked out without the shortcuts."""
    random = np.random.default_rng(1)
    sizes = random.integers(1, 30, 14)
    names = np.repeat(np.arange(14), sizes)
    rows = random.normal(0, 1, 14)[names] + random.normal(0, 1, len(names))
    shares = sizes / sizes.sum()
    means = np.array([rows[names == g].mean() for g in range(14)])
    hat = np.eye(14) - np.outer(np.ones(14), shares)
    adjusted = np.diag((hat @ hat.T).diagonal() ** -0.5)
    parts = np.diag(shares) @ adjusted @ hat
    gram = parts @ parts.T
    found = interval_of_mean(rows, list(map(str, names)))
    assert found.se == pytest.approx(math.sqrt(((parts @ means) ** 2).sum()))
    assert found.freedom == pytest.approx(np.trace(gram) ** 2 / (gram**2).sum())
    assert found.units == pytest.approx(1 / (shares**2).sum())


def test_mcnemar_contains_scipys_test_and_agrees_with_itself() -> None:
    for gained in range(0, 12):
        for lost in range(0, 12):
            found = mcnemar(gained, lost, gained + lost + 8)
            assert found.mean == pytest.approx((gained - lost) / (gained + lost + 8))
            assert found.low is not None
            assert found.high is not None
            assert found.low <= found.mean <= found.high
            assert (found.p <= 0.05) == (found.low > 0 or found.high < 0)
            if gained + lost:
                exact = stats.binomtest(gained, gained + lost)
                share = (gained + lost) / (gained + lost + 8)
                assert found.p >= exact.pvalue - 1e-12
                ends = exact.proportion_ci(method="exact")
                assert found.low <= (2 * ends.low - 1) * share + 1e-9
                assert found.high >= (2 * ends.high - 1) * share - 1e-9


def test_one_gained_of_twenty_may_be_three_of_twenty() -> None:
    """The exact interval alone takes the number of changed rows as known: it said at most 5%."""
    found = mcnemar(1, 0, 20)
    assert found.high is not None
    assert found.high > 0.2
    assert found.low is not None
    assert found.low < -0.1


@pytest.mark.parametrize(("gained", "lost", "rows"), [(0, 1, 44), (3, 0, 20), (5, 2, 12), (11, 4, 60)])
def test_tangos_ends_are_where_the_score_statistic_is_critical(gained: int, lost: int, rows: int) -> None:
    """The nuisance is maximized numerically here: the likelihood of both kinds of change, given their difference."""
    for bound in (1.96, -1.96):
        difference = statistics._tango(gained, lost, rows, bound)
        rare = np.linspace(max(0.0, -difference), min((1 - difference) / 2, 1.0), 2_000_001)[1:-1]
        likelihood = xlogy(gained, rare + difference) + xlogy(lost, rare)
        likelihood += xlogy(rows - gained - lost, 1 - 2 * rare - difference)
        best = float(rare[likelihood.argmax()])
        variance = rows * (2 * best + difference * (1 - difference))
        assert (gained - lost - rows * difference) / math.sqrt(variance) == pytest.approx(bound, abs=2e-3)


def test_no_disagreement_is_not_certainty() -> None:
    found = mcnemar(0, 0, 20)
    assert (found.mean, found.p) == (0, 1)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_sections_widen_the_interval() -> None:
    random = np.random.default_rng(5)
    sections = np.repeat(np.arange(20), 10)
    values = random.normal(0.3, 1, 20)[sections] + random.normal(0, 0.1, 200)
    rows, clustered = interval_of_mean(values), interval_of_mean(values, [f"chapter {s}" for s in sections])
    assert clustered.clusters == 20
    assert clustered.units == 20
    assert clustered.mean == pytest.approx(rows.mean)
    assert clustered.se is not None
    assert rows.se is not None
    assert clustered.se > 2.5 * rows.se


def test_sections_of_one_row_each_are_rows() -> None:
    values = list(np.random.default_rng(1).normal(0.2, 1, 25))
    rows, clustered = interval_of_mean(values), interval_of_mean(values, [str(i) for i in range(25)])
    assert rows.se == pytest.approx(np.std(values, ddof=1) / 5)
    assert clustered.se == pytest.approx(rows.se)
    assert clustered.freedom == pytest.approx(24)


def test_too_few_units_are_a_problem() -> None:
    assert math.isnan(interval_of_mean([]).mean)
    assert interval_of_mean([1.0]).low is None
    assert interval_of_mean([0.5] * 10).low is None
    random = np.random.default_rng(0)
    assert interval_of_mean(random.normal(0, 1, MIN_UNITS - 1)).problem == "few"
    assert interval_of_mean(random.normal(0, 1, MIN_UNITS)).problem is None
    unequal = ["one"] * 1000 + [f"section {i}" for i in range(9)]
    found = interval_of_mean(random.normal(0, 1, 1009), unequal)
    assert (found.clusters, found.problem) == (10, "few")
    assert found.units == pytest.approx(1.02, abs=0.01)


def test_values_near_the_largest_float_have_no_interval() -> None:
    found = interval_of_mean([1e200 * (1 + i / 10) for i in range(12)])
    assert (found.low, found.p, found.problem) == (None, 1.0, "few")


def test_a_tail_that_was_hardly_sampled_is_a_problem() -> None:
    assert interval_of_mean([0.1, 0.2, 0.15, 0.12, 0.18, 0.2, 0.1, 0.14, 0.16, 0.13, 0.17, -4.0]).problem == "lopsided"


@pytest.mark.real
def test_detectable_difference_is_found_in_four_of_five_samples() -> None:
    random = np.random.default_rng(2)
    n, sd = 30, 1.0
    detectable = np.mean([interval_of_mean(random.normal(0, sd, n)).min_detectable_effect for _ in range(100)])
    found = sum(interval_of_mean(random.normal(detectable, sd, n)).p <= 0.05 for _ in range(1000))
    assert 0.72 < found / 1000 < 0.88


def test_welch_equals_scipy() -> None:
    random = np.random.default_rng(9)
    one, other = random.normal(1, 1, 20), random.normal(0.2, 2, 35)
    found = welch(interval_of_mean(one), interval_of_mean(other))
    wanted = stats.ttest_ind(one, other, equal_var=False)
    assert found.p == pytest.approx(wanted.pvalue, abs=1e-8)
    ends = wanted.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
