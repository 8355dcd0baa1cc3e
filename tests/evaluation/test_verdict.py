"""The verdict says better only with an interval beside it, and 'not proven' where rows cannot tell."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from sartor.base.errors import RunError
from sartor.base.i18n import tr
from sartor.checks.leaks import Leak
from sartor.evaluation.verdict import (
    NO_REMARK,
    Findings,
    Forgetting,
    Verdict,
    compare_rows,
    make_verdict,
    memorization,
    spread_of,
)
from sartor.evaluation.verdict_text import verdict_json, verdict_panel, verdict_sentence


def losses(gain: float, n: int = 20, seed: int = 0) -> tuple[list[float], list[float]]:
    random = np.random.default_rng(seed)
    base = random.normal(3, 0.5, n)
    return list(base), list(base - random.normal(gain, 0.4, n))


def test_lower_loss_is_better() -> None:
    base, tuned = losses(0.6)
    found = compare_rows(base, tuned, metric="loss", higher_is_better=False)
    assert found.outcome == "better"
    assert found.difference == pytest.approx(np.mean(tuned) - np.mean(base))
    assert found.gain == -found.difference
    assert found.improved + found.worsened == 20
    assert compare_rows(tuned, base, metric="loss", higher_is_better=False).outcome == "worse"
    assert compare_rows(base, tuned, metric="x").outcome == "worse"


def test_small_differences_are_not_proven() -> None:
    found = compare_rows(*losses(0.02), metric="loss", higher_is_better=False)
    verdict = make_verdict(Findings(found))
    assert verdict.outcome == "not_proven"
    assert found.min_detectable_effect is not None
    assert found.min_detectable_effect > abs(found.difference)
    assert "not proven" in verdict_sentence(verdict).render("en")
    assert "尚未证明" in verdict_sentence(verdict).render("zh")


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("gain", [0.6, -0.6, 0.01])
def test_no_sentence_without_the_interval(gain: float, lang: str) -> None:
    verdict = make_verdict(Findings(compare_rows(*losses(gain), metric="loss", higher_is_better=False)))
    sentence = verdict_sentence(verdict).render(lang)
    assert "95%" in sentence
    assert "p " in sentence
    assert "20" in sentence


def test_one_row_proves_nothing() -> None:
    verdict = make_verdict(Findings(compare_rows([3.0], [1.0], metric="loss", higher_is_better=False)))
    assert verdict.outcome == "not_proven"
    assert "1 held-out row" in verdict_sentence(verdict).render("en")


def test_right_and_wrong_go_to_mcnemar_in_percent() -> None:
    base, tuned = [0.0] * 10 + [100.0] * 10, [100.0] * 8 + [0.0] * 2 + [100.0] * 10
    found = compare_rows(base, tuned, metric="exact-match")
    assert found.method.startswith("mcnemar")
    assert found.difference == 40
    assert found.p == pytest.approx(2 * 0.5**8)
    nothing = compare_rows([0.0] * 20, [0.0] * 20, metric="exact-match")
    assert nothing.outcome == "not_proven"
    assert nothing.high == pytest.approx(100 * (1 - 0.025 ** (1 / 20)))


def test_rows_without_a_value_are_left_out_on_both_sides() -> None:
    found = compare_rows([1.0, math.nan, 3.0], [2.0, 5.0, math.nan], metric="x")
    assert (found.n, found.base, found.tuned) == (1, 1.0, 2.0)
    with pytest.raises(ValueError, match="2 base values"):
        compare_rows([1.0, 2.0], [1.0], metric="x")


def test_sections_are_clusters_only_where_there_are_ten() -> None:
    base, tuned = losses(0.3, n=40)
    few = compare_rows(base, tuned, metric="loss", clusters=[f"chapter {i % 4}" for i in range(40)])
    assert few.clusters is None
    assert "4 sections are too few" in str(few.remark)
    enough = compare_rows(base, tuned, metric="loss", clusters=[f"chapter {i % 12}" for i in range(40)])
    assert enough.clusters == 12
    assert "clusters" in enough.method
    assert compare_rows(base, tuned, metric="loss", clusters=[None] * 40).remark == NO_REMARK


def test_only_the_primary_metric_decides() -> None:
    primary = compare_rows(*losses(0.01), metric="loss", higher_is_better=False)
    strong = compare_rows(list(np.arange(20.0)), list(np.arange(20.0) + np.arange(20) % 3 + 30), metric="rouge-l")
    verdict = make_verdict(Findings(primary, (strong, strong)))
    assert strong.outcome == "better"
    assert verdict.outcome == "not_proven"
    assert [other.p_holm for other in verdict.others] == [2 * strong.p, 2 * strong.p]


def test_memorization_is_found_when_training_rows_gain_more() -> None:
    held_out = compare_rows(*losses(0.1, seed=1), metric="loss", higher_is_better=False)
    train = compare_rows(*losses(1.5, seed=2), metric="loss", higher_is_better=False)
    found = memorization(train, held_out)
    assert found.found
    assert found.gap == pytest.approx(train.gain - held_out.gain)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.gap < found.high
    assert not memorization(held_out, held_out).found


def full_verdict() -> Verdict:
    primary = compare_rows(*losses(0.5), metric="loss", higher_is_better=False)
    probe = compare_rows([100.0] * 40 + [0.0] * 20, [100.0] * 25 + [0.0] * 34 + [100.0], metric="general")
    return make_verdict(
        Findings(
            replace(primary, remark=tr("a remark with {count}", count=3)),
            (compare_rows([], [], metric="bleu"), compare_rows([1.0], [2.0], metric="chrf")),
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
    assert {"en": "Better", "zh": "变好了"}[lang] in text
    assert {"en": "2 lost, 1 gained of 60", "zh": "丢失 2，新增 1"}[lang] in text
    assert {"en": "3 training runs with different seeds", "zh": "用不同种子的 3 次训练"}[lang] in text


def test_spread_of_seeds() -> None:
    spread = spread_of([-0.5, -0.4, 0.1])
    assert (spread.low, spread.high, spread.same_sign) == (-0.5, 0.1, 2)
    assert spread.sd == pytest.approx(np.std([-0.5, -0.4, 0.1], ddof=1))
    assert spread_of([1.0]).sd == 0
