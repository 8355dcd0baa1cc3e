"""The choice on the evaluate page: what a job gets, and what a reload shows again."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from sartor.base.config import RunConfig, parse_override
from sartor.evaluation import metrics
from sartor.web import jobs as queue
from sartor.web import worker
from sartor.web.form import check_permissions
from sartor.web.jobs import Job, Jobs
from sartor.web.pages.evaluate import EvaluationChoice, last_choice
from sartor.web.pages.verdict import TICK_FRAC, metric_names, ticks


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """A queue that starts nothing."""
    monkeypatch.setattr(queue.Jobs, "advance", lambda self: None)
    return Jobs(tmp_path / "jobs", tmp_path)


def settings(choice: EvaluationChoice) -> RunConfig:
    return RunConfig.from_dict(dict(parse_override(item) for item in choice.overrides()))


def test_a_run_is_measured_against_its_base_on_its_own_rows_by_default() -> None:
    assert EvaluationChoice("a").targets == []
    assert EvaluationChoice("a", datasets=["new"]).targets == ["runs/a", "base"]
    assert EvaluationChoice("a", ["runs/b"], ["new"]).targets == ["runs/a", "runs/b"]
    assert settings(EvaluationChoice("a", datasets=["new", "old"])).data.eval_dataset == ("new", "old")


def test_metrics_are_always_named_and_only_builtin_ones_can_be() -> None:
    """A run's own settings may name a Python file: it is overridden, so it never runs from the page."""
    deciding, every = metric_names()
    for chosen in ([], ["chrf"], list(every)):
        for metric in deciding:
            made = settings(EvaluationChoice("a", metric=metric, metrics=chosen))
            assert "metrics" in made.given
            check_permissions(made)
            names = {m.name for m in metrics.find(made.evaluation.metrics)}
            assert metric == "loss" or metric in names
            assert set(chosen) <= names


def test_the_margin_goes_to_the_comparison_where_it_is_given() -> None:
    assert settings(EvaluationChoice("a")).evaluation.margin is None
    assert settings(EvaluationChoice("a", margin=0.5)).evaluation.margin == 0.5
    assert EvaluationChoice("a", **EvaluationChoice("a", margin=0.5).to_json()).margin == 0.5


def test_a_python_file_in_a_runs_settings_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(worker.api, "compare", lambda run, overrides, progress: given.update(overrides=overrides))
    monkeypatch.setattr(worker.api, "report", lambda run: "")
    monkeypatch.setattr(worker, "_check_paths", lambda job: None)  # there is no run
    (tmp_path / "j").mkdir()
    job = Job(tmp_path / "j", "compare", "a", {"run": "runs/a", "overrides": EvaluationChoice("a").overrides()})
    with pytest.raises(AttributeError):
        worker.work(job)  # no verdict comes of it; what counts is what it was given
    own = {"metrics": ["mine.py"], "model_name_or_path": "m"}
    merged = RunConfig.from_dict({**own, **dict(parse_override(item) for item in given["overrides"])})
    assert merged.evaluation.metrics == ("all",)


def test_a_reload_shows_what_was_measured_last(jobs: Jobs) -> None:
    first = EvaluationChoice("a", ["base"], ["new"], "chrf", ["chrf", "bleu-4"], 7)
    assert last_choice(jobs, "a") == EvaluationChoice("a")
    job = jobs.add(
        "compare_many", "a", targets=first.targets, overrides=first.overrides(), out="x", choice=first.to_json()
    )
    jobs.add("train", "a", settings="s.yaml")
    again = Jobs(jobs.folder, jobs.work_in)
    assert last_choice(again, "a") == first
    assert last_choice(again, "b") == EvaluationChoice("b")
    assert first.is_choice_of(job)
    assert not EvaluationChoice("a", ["base"]).is_choice_of(job), "other rows are another measurement"
    assert not EvaluationChoice("b", ["base"], ["new"]).is_choice_of(job)
    older = jobs.add("compare", "a", run="runs/a", overrides=[])
    assert EvaluationChoice("a").is_choice_of(older), "a job of an earlier page kept no choice"


@pytest.mark.parametrize(
    ("low", "high", "reach"), [(-0.12, -0.066, 0.55), (-0.5, 0.3, 0.6), (0.2, 0.5, 0.6), (-0.01, 0.01, 1.0), (5, 5, 6)]
)
def test_numbers_under_the_interval_do_not_cover_one_another(low: float, high: float, reach: float) -> None:
    width = TICK_FRAC * 2 * reach
    shown = [(value + shift / 100 * width, value) for value, shift in ticks(low, high, reach)]
    spans = sorted((left, left + width) for left, _ in shown)
    assert all(after[0] >= before[1] - 0.11 * width for before, after in itertools.pairwise(spans))
    assert {low, high} <= {value for value, _ in ticks(low, high, reach)}
