"""Several models against the first: their intervals, p values and outcomes allow for how many they are."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from sartor.evaluation.multi_model import Candidate, comparison_table, make_comparison
from sartor.evaluation.score import Scorer

ROWS = 20


def candidate(name: str, change: float, cut: int = 0) -> Candidate:
    random, scoring = np.random.default_rng(3), Scorer(["exact-match"])
    base = random.normal(3, 0.3, ROWS)
    own = np.random.default_rng(len(name)).normal(change, 0.2, ROWS)
    for number in range(ROWS):
        scoring.add("wrong", f"answer {number}")
    return Candidate(name, name * 4, scoring.result(), tuple(base + own), (3,) * ROWS, cut)


def test_what_one_comparison_would_claim_seven_may_not() -> None:
    """Each of seven alone has a 5% chance of a false claim; together they had more, because only p was adjusted."""
    first, change = candidate("a", 0.0), -0.18
    alone = make_comparison([first, candidate("bb", change)], list(map(str, range(ROWS))), margin=0.0)
    many = [candidate("bb", change), *(candidate("c" * n, 0.0) for n in range(3, 9))]
    together = make_comparison([first, *many], list(map(str, range(ROWS))), margin=0.0)
    one, other = alone.verdicts[0].primary, together.verdicts[0].primary
    assert (one.comparisons, other.comparisons) == (1, 7)
    assert one.outcome == "better"
    assert other.p == min(1.0, 7 * one.p)
    for verdict in together.verdicts:
        low, high = verdict.primary.gains
        assert (verdict.primary.p <= 0.05) == (low > 0 or high < 0)
        assert verdict.outcome == verdict.primary.outcome
        assert verdict.others[0].comparisons == 7
    assert any("7 comparisons" in str(note) for note in together.notes)


def test_rows_that_failed_and_answers_that_were_cut_are_said() -> None:
    broken = candidate("bb", -0.5, cut=6)
    broken = Candidate(
        *(broken.name, broken.answered_by, broken.scores, (float("nan"), *(broken.losses or ())[1:])),
        broken.label_tokens,
        broken.cut,
    )
    ids = [f"d:{n}" for n in range(ROWS)]
    found = make_comparison([candidate("a", 0.0), broken], ids)
    assert found.verdicts[0].outcome == "not_proven"
    assert found.verdicts[0].primary.failed == ("d:0",)
    notes = list(map(str, found.notes))
    assert any("d:0" in note for note in notes)
    assert "bb: 6 answers were cut at max_new_tokens." in notes
    assert found.to_json()["candidates"][1]["loss"] is None
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison_table(found))
    assert "Not proven" in console.export_text()
