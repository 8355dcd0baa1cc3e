"""Judging a run: rows are paired by id, human labels are read strictly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sartor.api.judging import judge_run, read_labels
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, DataError
from sartor.base.permissions import Permissions
from sartor.base.rundir import RunDir
from sartor.evaluation.difference import Measure, compare_rows
from sartor.evaluation.verdict import Findings, make_verdict
from sartor.evaluation.verdict_text import remarks


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    for which, ids in (("base", (1, 2, 3)), ("tuned", (3, 2, 1))):
        folder = tmp_path / "predictions" / f"{which}-held_out"
        folder.mkdir(parents=True)
        rows = [{"id": f"d:{n}", "question": f"q{n}", "predict": f"{which} {n}", "label": f"ref {n}"} for n in ids]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "generated_predictions.jsonl").write_text(text, encoding="utf-8")
    return RunDir(tmp_path)


def test_answers_of_the_same_row_meet(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text(
        '{"id": "d:1", "label": "tuned"}\n\n{"id": "d:2", "label": "tie"}\n', "utf-8"
    )
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "1" if prompt.index("tuned ") < prompt.index("base ") else "2"

    judged = judge_run(run, RunConfig.from_dict({"judge_labels": str(tmp_path / "labels.jsonl")}), ask=ask)
    assert judged.counts["tuned"] == 3
    assert judged.agreement == 0.5
    for prompt in asked:
        numbers = {word for word in ("1", "2", "3") if f"q{word}" in prompt}
        assert len(numbers) == 1
        number = numbers.pop()
        assert all(f"{name} {number}" in prompt for name in ("base", "tuned", "ref"))
    difference = compare_rows([1.0] * 5, [2.0] * 5, Measure("x"))
    verdict = make_verdict(Findings(difference, judge=judged.to_json()))
    lines = [line.render("en") for line in remarks(verdict)]
    assert any("3 answers better" in line for line in lines)
    assert "The judge agrees with people on 50%." in lines
    assert any("评判模型" in line.render("zh") for line in remarks(verdict))


def test_what_is_missing_or_malformed_is_named(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="address and a model"):
        judge_run(run, RunConfig.from_dict({"judge_endpoint": "http://localhost/v1"}))
    (tmp_path / "labels.jsonl").write_text('{"id": "d:1", "label": "tuned"}\n{"id": "d:2", "label": "best"}\n', "utf-8")
    asked = {"judge_endpoint": "https://judge/v1", "judge_model": "m", "judge_api_key": "${NO_SUCH_JUDGE_KEY}"}
    with pytest.raises(ConfigError, match="NO_SUCH_JUDGE_KEY is not set"):
        judge_run(run, RunConfig.from_dict(asked, permissions=Permissions(allow_upload=("judge",))))
    monkeypatch.setenv("CLOUD_API_KEY", "of-another-service")
    named_by_a_file = asked | {"judge_endpoint": "https://judge/v1", "judge_api_key": "${CLOUD_API_KEY}"}
    with pytest.raises(ConfigError, match="bound to no host") as refused:
        judge_run(run, RunConfig.from_dict(named_by_a_file, permissions=Permissions(allow_upload=("judge",))))
    assert "export CLOUD_BASE_URL=https://judge/v1" in str(refused.value.fix)
    with pytest.raises(DataError, match="best") as caught:
        read_labels(tmp_path / "labels.jsonl")
    assert "line 2" in str(caught.value.where)
