"""The verdict says better only with an interval beside it, and 'not proven' where rows cannot tell."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from sartor.base.errors import RunError
from sartor.base.i18n import shown_in, tr
from sartor.checks.leaks import Leak
from sartor.evaluation import metrics, preferences
from sartor.evaluation.difference import LOSS, Measure, compare_rows
from sartor.evaluation.verdict import (
    AnswerCounts,
    Findings,
    Forgetting,
    Verdict,
    make_verdict,
    memorization,
    spread_of,
)
from sartor.evaluation.verdict_text import NAMES as METRIC_NAMES
from sartor.evaluation.verdict_text import (
    answers_sentence,
    headline,
    metric_name,
    remarks,
    verdict_json,
    verdict_panel,
    verdict_sentence,
)


def losses(gain: float, n: int = 20, seed: int = 0) -> tuple[list[float], list[float]]:
    random = np.random.default_rng(seed)
    base = random.normal(3, 0.5, n)
    return list(base), list(base - random.normal(gain, 0.4, n))


def test_lower_loss_is_better() -> None:
    base, tuned = losses(0.6)
    found = compare_rows(base, tuned, LOSS)
    assert found.outcome == "better"
    assert found.difference == pytest.approx(np.mean(tuned) - np.mean(base))
    assert found.gain == -found.difference
    assert found.improved + found.worsened == 20
    assert compare_rows(tuned, base, LOSS).outcome == "worse"
    assert compare_rows(base, tuned, Measure("x", range=(0, math.inf))).outcome == "worse"


def test_small_differences_are_not_proven() -> None:
    found = compare_rows(*losses(0.02), LOSS)
    verdict = make_verdict(Findings(found))
    assert verdict.outcome == "not_proven"
    assert found.min_detectable_effect is not None
    assert found.min_detectable_effect > abs(found.difference)
    assert "not proven" in verdict_sentence(verdict).render("en")
    assert "尚未证明" in verdict_sentence(verdict).render("zh")


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("gain", [0.6, -0.6, 0.01])
def test_no_sentence_without_the_interval(gain: float, lang: str) -> None:
    verdict = make_verdict(Findings(compare_rows(*losses(gain), LOSS)))
    sentence = verdict_sentence(verdict).render(lang)
    assert "95%" in sentence
    assert "p " in sentence
    assert "20" in sentence


def test_one_row_proves_nothing() -> None:
    verdict = make_verdict(Findings(compare_rows([3.0], [1.0], LOSS)))
    assert verdict.outcome == "not_proven"
    assert "at least 10 held-out rows" in verdict_sentence(verdict).render("en")


def test_right_and_wrong_go_to_mcnemar_in_percent() -> None:
    base, tuned = [0.0] * 10 + [100.0] * 10, [100.0] * 8 + [0.0] * 2 + [100.0] * 10
    found = compare_rows(base, tuned, Measure("exact-match"))
    assert found.method.startswith("mcnemar")
    assert found.difference == 40
    assert found.p == pytest.approx(2 * 0.5**8)
    nothing = compare_rows([0.0] * 20, [0.0] * 20, Measure("exact-match"))
    assert nothing.outcome == "not_proven"
    assert nothing.high == pytest.approx(100 * (1 - 0.025 ** (1 / 20)))


def test_rows_without_a_reference_are_left_out() -> None:
    found = compare_rows([1.0, math.nan, 3.0], [2.0, math.nan, 3.5], Measure("x"))
    assert (found.n, found.base, found.tuned, found.failed) == (2, 2.0, 2.75, ())
    with pytest.raises(ValueError, match="2 base values"):
        compare_rows([1.0, 2.0], [1.0], Measure("x"))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_value_that_is_no_number_is_named_and_nothing_is_claimed(value: float) -> None:
    base, tuned = losses(0.6)
    ids = [f"d:{i}" for i in range(20)]
    found = compare_rows([*base[:-1], value], tuned, LOSS, ids=ids)
    assert (found.n, found.failed, found.outcome) == (19, ("d:19",), "not_proven")
    assert found.low is not None
    assert "d:19" in str(found.refusal)
    assert "d:19" in str(verdict_sentence(make_verdict(Findings(found))))
    alike = compare_rows([*base[:-1], value], [*base[:-1], base[-1]], LOSS)
    assert alike.outcome == "not_proven"
    assert compare_rows([value] * 20, [1.0] * 20, LOSS).outcome == "not_proven"


def test_rounding_is_no_difference() -> None:
    base = [3.0 + i / 10 for i in range(20)]
    for tiny in (1e-13, 1e-9, 1e-7):
        found = compare_rows(base, [b - tiny for b in base], Measure("loss", False, (0, math.inf), margin=0.0))
        assert (found.difference, found.p, found.outcome) == (0, 1, "not_proven")


def test_a_constant_difference_is_not_known_exactly() -> None:
    base = [3.0 + i / 10 for i in range(20)]
    found = compare_rows(base, [b - 0.5 for b in base], LOSS)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low > 0.1
    assert found.outcome == "better"
    sections = compare_rows(base, [b - 0.5 for b in base], LOSS, clusters=[f"s{i % 5}" for i in range(20)])
    assert sections.outcome == "not_proven"
    assert "5 sections" in str(sections.refusal)


def test_sections_are_never_taken_for_rows() -> None:
    base, tuned = losses(0.6, n=40)
    few = compare_rows(base, tuned, LOSS, clusters=[f"chapter {i % 4}" for i in range(40)])
    assert (few.clusters, few.units, few.outcome) == (4, 4, "not_proven")
    assert "4 sections count as 4" in str(few.refusal)
    enough = compare_rows(base, tuned, LOSS, clusters=[f"chapter {i % 12}" for i in range(40)])
    assert enough.clusters == 12
    assert "sections" in enough.method
    assert not compare_rows(base, tuned, LOSS, clusters=[None] * 40).refusal


def test_only_the_primary_metric_decides() -> None:
    primary = compare_rows(*losses(0.01), LOSS)
    base, tuned = list(np.arange(20.0)), list(np.arange(20.0) + np.arange(20) % 3 + 30)
    strong = compare_rows(base, tuned, Measure("rouge-l"), comparisons=2)
    verdict = make_verdict(Findings(primary, (strong, strong)))
    assert strong.outcome == "better"
    assert verdict.outcome == "not_proven"


def test_intervals_are_adjusted_as_p_is() -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        base = random.normal(50, 10, 20)
        tuned = base + random.normal(random.choice([0, 4, 8]), 8, 20)
        one, many = (compare_rows(base, tuned, Measure("x"), comparisons=m) for m in (1, 14))
        assert many.p == pytest.approx(min(1, 14 * one.p))
        assert many.low is not None
        assert many.high is not None
        assert one.low is not None
        assert many.low < one.low
        assert (many.p <= 0.05) == (many.low > 0 or many.high < 0)


def test_better_is_more_than_the_margin() -> None:
    """3.02 to 3.01 on every row is certain, and worth nothing."""
    random = np.random.default_rng(0)
    base = random.normal(3.02, 0.5, 20)
    tiny = compare_rows(base, base - random.normal(0.01, 0.002, 20), LOSS)
    assert tiny.p < 0.001
    assert tiny.margin == pytest.approx(0.02 * base.mean())
    assert tiny.outcome == "same"
    assert "No difference in loss" in str(headline(make_verdict(Findings(tiny))))
    asked = compare_rows(base, base - random.normal(0.01, 0.002, 20), replace(LOSS, margin=0.001))
    assert asked.outcome == "better"
    assert compare_rows(base, base - random.normal(0.6, 0.1, 20), replace(LOSS, margin=0.6)).outcome == "not_proven"
    points = compare_rows([50.0] * 20, 50 + random.normal(0.4, 0.1, 20), Measure("token-f1"))
    assert (points.margin, points.outcome) == (1.0, "same")


@pytest.mark.parametrize(
    ("gain", "exact", "close", "words"),
    [
        (0.15, 0, 0, "Slightly better in loss; the answers are not shown to be more correct"),
        (0.5, 0, 30, "Better in loss; the answers are closer to the references, but not shown to be more correct"),
        (1.5, 20, 30, "Much better in loss; more answers are exactly right"),
        (-1.5, 0, -30, "Much worse in loss; the answers moved away from the references"),
        (0.0, 0, 0, "Not proven; the answers are not shown to be more correct"),
    ],
)
def test_headline_says_how_much_and_what_of_the_answers(gain: float, exact: int, close: float, words: str) -> None:
    random = np.random.default_rng(1)
    base = random.normal(3, 0.3, 20)
    loss = compare_rows(base, base - random.normal(gain, 0.05 if gain else 0.5, 20), LOSS)
    wrong = [0.0] * 20
    match = compare_rows(wrong, [100.0] * exact + wrong[exact:], Measure("exact-match"), comparisons=2)
    overlap = random.normal(50, 5, 20)
    f1 = compare_rows(overlap, overlap + random.normal(close, 5, 20), Measure("token-f1"), comparisons=2)
    verdict = make_verdict(Findings(loss, (match, f1)))
    assert headline(verdict).render("en") == words
    assert headline(verdict).render("zh") != words


def test_answers_are_counted_beside_the_verdict() -> None:
    counts = AnswerCounts(20, exact=(1, 2), cut=(0, 7), empty=(3, 0), limit=96)
    text = str(answers_sentence(counts))
    for words in ("2 equal the reference (base: 1)", "7 were cut at 96 tokens (base: 0)", "0 are empty (base: 3)"):
        assert words in text
    assert answers_sentence(None) is None


def test_what_no_row_shows_is_said() -> None:
    verdict = make_verdict(Findings(compare_rows(*losses(0.6), LOSS)))
    assert "What happens in fewer than 15% of rows may be missing among these." in map(str, remarks(verdict))


def test_memorization_is_found_when_training_rows_gain_more() -> None:
    held_out = compare_rows(*losses(0.1, seed=1), LOSS)
    train = compare_rows(*losses(1.5, seed=2), LOSS)
    found = memorization(train, held_out)
    assert found.found
    assert found.gap == pytest.approx(train.gain - held_out.gain)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.gap < found.high
    assert not memorization(held_out, held_out).found


def full_verdict() -> Verdict:
    primary = compare_rows(*losses(0.5), LOSS)
    probe = compare_rows([100.0] * 40 + [0.0] * 20, [100.0] * 25 + [0.0] * 34 + [100.0], Measure("general"))
    return make_verdict(
        Findings(
            replace(primary, refusal=tr("a refusal with {count}", count=3), failed=("a", "b")),
            (compare_rows([], [], Measure("bleu")), compare_rows([1.0], [2.0], Measure("chrf"))),
            answers=AnswerCounts(20, (0, 1), (2, 3), (0, 0), 64),
            memorization=memorization(primary, primary, verbatim_train=0.2),
            forgetting=Forgetting(probe, ("en-1", "zh-4"), ("en-60",)),
            leaks=(Leak("a:1", "a:2", 0.97, "text", "texts"),),
            spread=spread_of([-0.5, -0.4, -0.6]),
            judge={"wins": 3},
            notes=(tr("a note"),),
        )
    )


def test_json_round_trip_is_exact_and_strict() -> None:
    verdict = full_verdict()
    text = json.dumps(verdict.to_json(), allow_nan=False)
    assert repr(Verdict.from_json(json.loads(text))) == repr(verdict)
    older = json.loads(text) | {"notes": ["a {plain} note"]}
    assert [str(note) for note in Verdict.from_json(older).notes] == ["a {plain} note"]
    assert verdict_json(verdict)["sentence"] == verdict_sentence(verdict).render("en")
    assert verdict_json(verdict)["headline_zh"] == headline(verdict).render("zh")
    broken = json.loads(text)
    del broken["primary"]["p"]
    with pytest.raises(RunError, match="Could not read the verdict"):
        Verdict.from_json(broken)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_terminal_and_remarks(monkeypatch: pytest.MonkeyPatch, lang: str) -> None:
    monkeypatch.setenv("SARTOR_LANG", lang)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(verdict_panel(full_verdict()))
    text = console.export_text()
    assert {"en": "Not proven", "zh": "尚未证明"}[lang] in text
    console = Console(width=40, record=True, file=io.StringIO())
    console.print(verdict_panel(full_verdict()))
    shown = console.export_text().replace("│", "").replace(" ", "").replace("\n", "")
    assert str(headline(full_verdict())).replace(" ", "") in shown  # whole in a narrow terminal too
    assert {"en": "2 lost, 1 gained of 60", "zh": "丢失 2，新增 1"}[lang] in text
    assert {"en": "3 training runs with different seeds", "zh": "用不同种子的 3 次训练"}[lang] in text


def test_spread_of_seeds() -> None:
    spread = spread_of([-0.5, -0.4, 0.1])
    assert (spread.low, spread.high, spread.same_sign) == (-0.5, 0.1, 2)
    assert spread.sd == pytest.approx(np.std([-0.5, -0.4, 0.1], ddof=1))
    assert spread_of([1.0]).sd == 0


IDS = [
    *METRIC_NAMES,
    *(metric.name for metric in metrics.find(["all"])),
    *preferences.LIMITS,
    "reward-accuracy",
    "reward-margin",
]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_people_read_words_instead_of_metric_ids(lang: str) -> None:
    for metric in IDS:
        shown = metric_name(metric).render(lang)
        assert not re.search(r"[a-z]-[a-z]|\.(char|word)$", shown), shown
        assert metric not in METRIC_NAMES or lang == "en" or re.search(r"[\u4e00-\u9fff]", shown), shown
    assert metric_name("covers-names").render(lang) == "covers-names"  # a metric that somebody else named


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_preference_verdict_is_told_in_words(lang: str) -> None:
    base, tuned = losses(0.6)
    found = [compare_rows(tuned, base, Measure(name, True)) for name in ("preference-margin", "preference-accuracy")]
    verdict = make_verdict(Findings(found[0], (found[1],)))
    console = Console(file=io.StringIO(), width=200)
    with shown_in(lang):
        console.print(verdict_panel(verdict))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "preference" not in shown
    for name in ("preference-margin", "preference-accuracy"):
        assert metric_name(name).render(lang) in shown
    assert metric_name("preference-margin").render(lang) in headline(verdict).render(lang)
