"""Several models on the page: where a comparison lies, what can be chosen, and rows sorted by any model's score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import ConfigError
from sartor.evaluation import metrics
from sartor.evaluation.multi_model import Candidate, make_comparison
from sartor.evaluation.score import Scorer
from sartor.web.i18n import Translator
from sartor.web.jobs import Job
from sartor.web.pages import comparison
from sartor.web.pages.verdict import metric_names
from sartor.web.workspace import Workspace

ROWS = 12


def candidate(name: str, worse: float) -> Candidate:
    scoring = Scorer(["rouge-l.char"])
    for number in range(ROWS):
        scoring.add(f"answer {number}"[: 6 + int(3 * worse)], f"answer {number}")
    return Candidate(name, name * 4, scoring.result(), tuple(1.0 + worse + 0.1 * n for n in range(ROWS)), (3,) * ROWS)


def finished(folder: Path) -> Job:
    """A job of three models whose files are there."""
    made = make_comparison(
        [candidate(name, worse) for name, worse in (("a", 0.0), ("b", 0.5), ("c", 1.0))], [str(n) for n in range(ROWS)]
    )
    out = folder / "runs" / "a" / "comparisons" / "x"
    for place, one in enumerate(made.candidates, 1):
        (out / f"{place}-{one.name}").mkdir(parents=True)
        lines = [
            {
                "id": str(n),
                "predict": f"{one.name}{n}",
                "label": "l",
                "question": f"q{n}",
                "loss": one.losses[n],
                "scores": {"rouge-l.char": float(n)},
            }
            for n in range(ROWS)
            if one.losses
        ]
        (out / f"{place}-{one.name}" / "generated_predictions.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
        )
    job = Job(folder / "job", "compare_many", "a", {})
    job.path.mkdir()
    job.write("ended.json", {"exit": 0, "result": {"folder": "runs/a/comparisons/x", **made.to_json()}})
    return job


def test_an_outcome_is_read_with_every_models_answers_side_by_side(tmp_path: Path) -> None:
    saved = comparison.read(Workspace(tmp_path), finished(tmp_path))
    assert saved.metric == "loss"
    assert [verdict.outcome for verdict in saved.verdicts] == ["worse", "worse"]
    assert [[one["predict"] for one in row] for row in saved.rows[:2]] == [["a0", "b0", "c0"], ["a1", "b1", "c1"]]
    orders = comparison.orders(Translator("en"), saved)
    assert orders["1 loss down"] == "b: loss ↓"
    assert [row[0]["id"] for row in comparison.ordered(saved.rows, "1 loss down")] == [
        str(n) for n in reversed(range(ROWS))
    ]


def test_rows_without_the_score_come_last() -> None:
    rows: list[list[dict[str, Any]]] = [
        [{"id": "none"}],
        [{"id": "low", "scores": {"x": 1}}],
        [{"id": "zero", "scores": {"x": 0}}],
    ]
    assert [row[0]["id"] for row in comparison.ordered(rows, "0 x up")] == ["zero", "low", "none"]
    assert [row[0]["id"] for row in comparison.ordered(rows, "0 x down")] == ["low", "zero", "none"]


def test_other_settings_are_another_comparison() -> None:
    targets = ["runs/a", "base"]
    assert comparison.output_folder("a", targets, ["x=1"]) == comparison.output_folder("a", targets, ["x=1"])
    assert comparison.output_folder("a", targets, ["x=1"]) != comparison.output_folder("a", targets, ["x=2"])
    assert comparison.output_folder("a", targets, []).startswith("runs/a/comparisons/")


def test_every_metric_that_can_be_chosen_exists_and_what_decides_has_a_value_for_each_row() -> None:
    deciding, every = metric_names()
    assert deciding[0] == "loss"
    assert {metric.name for metric in metrics.find(every)} == set(every)
    assert all(isinstance(metric, metrics.PairMetric) for metric in metrics.find(deciding[1:]))
    with pytest.raises(ConfigError):
        metrics.find(["token-f1.word"])
