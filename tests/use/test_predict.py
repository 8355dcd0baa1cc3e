"""Predict: files whole or absent, odd answers scored, rows that cannot be answered named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sartor.base.errors import DataError, RunError
from sartor.base.settings import GenerationSettings
from sartor.base.types import Demonstration, Message, Origin
from sartor.use import predict as predicting
from sartor.use.engine import Engine
from sartor.use.predict import predict


def example(number: int, answer: str = "Darcy.", last: str = "assistant") -> Demonstration:
    turns = (Message("user", f"Who is number {number}?"), Message(last, answer))  # type: ignore[arg-type]
    return Demonstration(turns, Origin("d", "d.json", number))


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> Engine:
    return Engine.load(str(tiny_model_dir), dtype="float32", device="cpu")


FEW = GenerationSettings(max_new_tokens=4)


def test_rows_come_back_in_order_with_scores_of_their_own(engine: Engine, tmp_path: Path) -> None:
    rows = [example(i, "word " * i) for i in range(1, 9)]
    heard: list[tuple[int, int | None]] = []
    done = predict(engine, rows, tmp_path, generation=FEW, progress=lambda a, b: heard.append((a, b)))
    lines = [json.loads(x) for x in (tmp_path / "generated_predictions.jsonl").read_text("utf-8").splitlines()]
    assert [line["id"] for line in lines] == [row.origin.id for row in rows]
    assert heard[-1] == (8, 8)
    for name, score in done.scores.items():
        values = [line["scores"][name] for line in lines if name in line["scores"]]
        if values and score.signature.startswith("mean"):
            assert score.value == pytest.approx(sum(values) / len(values))


def test_a_row_that_ends_in_a_question_is_named(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not end with an answer") as caught:
        predict(engine, [example(1), example(2, last="user")], tmp_path, generation=FEW)
    assert "row 2" in caught.value.where
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "🙂🙂🙂", "x" * 100_000, "\x00\x1b[31m", "。"])
def test_odd_answers_are_scored(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(engine, "text_of", lambda ids: text)
    done = predict(engine, [example(1), example(2)], tmp_path, generation=FEW)
    assert [row.text for row in done.rows] == [text, text]
    assert done.scores["rouge-l"].n == 2


def test_a_model_that_never_stops_is_cut_and_counted(engine: Engine, tmp_path: Path) -> None:
    done = predict(engine, [example(1)], tmp_path, generation=GenerationSettings(max_new_tokens=1))
    assert (done.rows[0].stop_reason, done.rows[0].tokens) == ("length", 1)
    assert done.results["stopped_at_limit"] == 1


def test_a_full_disk_leaves_the_old_files(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(engine, [example(1)], tmp_path, generation=FEW)
    before = (tmp_path / "generated_predictions.jsonl").read_bytes()

    def full(path: Path, content: bytes | str) -> None:
        raise RunError("The disk is full.", str(path), "Free some space.")

    monkeypatch.setattr(predicting, "atomic_write", full)
    with pytest.raises(RunError, match="disk is full"):
        predict(engine, [example(1), example(2)], tmp_path, generation=FEW)
    assert (tmp_path / "generated_predictions.jsonl").read_bytes() == before
