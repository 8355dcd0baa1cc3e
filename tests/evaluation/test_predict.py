"""Predict: files whole or absent, odd answers scored, rows that cannot be answered named."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sartor.base.errors import ConfigError, DataError, RunError
from sartor.base.forecast import AnswersPart, BatchForecast
from sartor.base.settings import GenerationSettings
from sartor.base.types import Origin
from sartor.evaluation import predict as predicting
from sartor.evaluation.journal import Shard
from sartor.evaluation.predict import PredictOptions, predict
from sartor.inference.engine import BATCH_ROWS, Engine
from support.questions import FEW, SAMPLED, example


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> Engine:
    return Engine.load(str(tiny_model_dir), dtype="float32", device="cpu")


def test_rows_come_back_in_order_with_scores_of_their_own(engine: Engine, tmp_path: Path) -> None:
    rows = [example(i, "word " * i) for i in range(1, 9)]
    heard: list[tuple[int, int | None]] = []
    done = predict(engine, rows, tmp_path, PredictOptions(generation=FEW), progress=lambda a, b: heard.append((a, b)))
    lines = [json.loads(x) for x in (tmp_path / "generated_predictions.jsonl").read_text("utf-8").splitlines()]
    assert [line["id"] for line in lines] == [row.origin.id for row in rows]
    assert heard[-1] == (8, 8)
    for name, score in done.scores.items():
        values = [line["scores"][name] for line in lines if name in line["scores"]]
        if values and score.signature.startswith("mean"):
            assert score.value == pytest.approx(sum(values) / len(values))


def test_a_row_that_ends_in_a_question_is_named(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not end with an answer") as caught:
        predict(engine, [example(1), example(2, last="user")], tmp_path, PredictOptions(generation=FEW))
    assert "row 2" in str(caught.value.where)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "🙂🙂🙂", "x" * 100_000, "\x00\x1b[31m", "。"])
def test_odd_answers_are_scored(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(engine, "text_of", lambda ids, **_: text)
    done = predict(engine, [example(1), example(2)], tmp_path, PredictOptions(generation=FEW))
    assert [row.text for row in done.rows] == [text, text]
    assert done.scores["rouge-l"].n == 2


def test_a_model_that_never_stops_is_cut_and_counted(engine: Engine, tmp_path: Path) -> None:
    done = predict(engine, [example(1)], tmp_path, PredictOptions(generation=GenerationSettings(max_new_tokens=1)))
    assert (done.rows[0].stop_reason, done.rows[0].tokens) == ("length", 1)
    assert done.results["stopped_at_limit"] == 1


def test_a_full_disk_leaves_the_old_files(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(engine, [example(1)], tmp_path, PredictOptions(generation=FEW))
    before = (tmp_path / "generated_predictions.jsonl").read_bytes()

    def full(path: Path, content: bytes | str) -> None:
        raise RunError("The disk is full.", str(path), "Free some space.")

    monkeypatch.setattr(predicting, "atomic_write", full)
    with pytest.raises(RunError, match="disk is full"):
        predict(engine, [example(1), example(2)], tmp_path, PredictOptions(generation=FEW))
    assert (tmp_path / "generated_predictions.jsonl").read_bytes() == before


def lines_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "generated_predictions.jsonl").read_text("utf-8").splitlines()]


def test_a_killed_prediction_goes_on_no_row_twice_none_missing(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [example(i) for i in range(1, 9)] + [example(3)]  # one row stands there twice
    whole = predict(engine, rows, tmp_path / "whole", PredictOptions(generation=SAMPLED))
    for kill_after in (1, 4, 8):
        folder, heard = tmp_path / str(kill_after), 0

        def stop(done: int, total: int | None, kill_after: int = kill_after) -> None:
            if done == kill_after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            predict(engine, rows, folder, PredictOptions(generation=SAMPLED), progress=stop)
        assert not (folder / "generated_predictions.jsonl").exists()
        with (folder / "journal.jsonl").open("ab") as file:
            file.write(b'{"key": "torn')

        def count(done: int, total: int | None) -> None:
            nonlocal heard
            heard += 1

        done = predict(engine, rows, folder, PredictOptions(generation=SAMPLED), progress=count)
        assert heard == len(rows) - kill_after
        assert done.results["resumed"] == kill_after
        assert lines_of(folder) == lines_of(tmp_path / "whole")
        assert [row.text for row in done.rows] == [row.text for row in whole.rows]
        assert not (folder / "journal.jsonl").exists()


def test_other_settings_do_not_take_the_journals_answers(engine: Engine, tmp_path: Path) -> None:
    rows = [example(i) for i in range(1, 5)]
    predict(engine, rows, tmp_path, PredictOptions(generation=FEW, shard=Shard(1, 1)))
    assert (
        predict(engine, rows, tmp_path, PredictOptions(generation=SAMPLED, shard=Shard(1, 1))).results["resumed"] == 0
    )
    assert (
        predict(engine, rows[::-1], tmp_path, PredictOptions(generation=FEW, shard=Shard(1, 1))).results["resumed"] == 0
    )
    assert predict(engine, rows, tmp_path, PredictOptions(generation=FEW)).results["resumed"] == 4


def test_shards_joined_are_the_whole(engine: Engine, tmp_path: Path) -> None:
    rows = [example(i) for i in range(1, 8)]
    predict(engine, rows, tmp_path / "whole", PredictOptions(generation=SAMPLED))
    parts = [
        predict(engine, rows, tmp_path / "parts", PredictOptions(generation=SAMPLED, shard=Shard(i, 3))) for i in (3, 1)
    ]
    assert [len(part.rows) for part in parts] == [2, 3]
    assert not (tmp_path / "parts" / "generated_predictions.jsonl").exists()
    with pytest.raises(RunError, match="2 of 7 rows") as caught:
        predict(engine, rows, tmp_path / "parts", PredictOptions(generation=SAMPLED, merge=True))
    assert "d:2" in str(caught.value.fix)
    predict(engine, rows, tmp_path / "parts", PredictOptions(generation=SAMPLED, shard=Shard(2, 3)))
    done = predict(engine, rows, tmp_path / "parts", PredictOptions(generation=SAMPLED, merge=True))
    assert done.results["resumed"] == 7
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")
    for wrong in ("0/3", "4/3", "a/b", "1"):
        with pytest.raises(ConfigError, match="Invalid shard"):
            Shard.parse(wrong)
    assert Shard.parse("2/3") == Shard(2, 3)


def test_each_of_several_datasets_is_scored_by_itself(engine: Engine, tmp_path: Path) -> None:
    other = [replace(example(i), origin=Origin("e", "e.json", i)) for i in (1, 2)]
    done = predict(engine, [example(1), *other], tmp_path, PredictOptions(generation=FEW))
    alone = predict(engine, other, tmp_path / "alone", PredictOptions(generation=FEW))
    assert done.results["datasets"]["e"]["rows"] == 2
    assert done.results["datasets"]["e"]["scores"]["rouge-l"]["value"] == alone.scores["rouge-l"].value
    assert "datasets" not in alone.results


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from sartor.evaluation.predict import PredictOptions, predict
from sartor.inference.engine import Engine
from support.questions import SAMPLED, example
engine = Engine.load(sys.argv[1], dtype="float32", device="cpu")
predict(engine, [example(i) for i in range(1, 200)], Path(sys.argv[2]), PredictOptions(generation=SAMPLED))
"""


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.real
def test_kill_nine_loses_no_row_and_doubles_none(
    engine: Engine, tiny_model_dir: Path, tmp_path: Path, trials: int
) -> None:
    rows = [example(i) for i in range(1, 200)]
    predict(engine, rows, tmp_path / "whole", PredictOptions(generation=SAMPLED))
    words = [
        sys.executable,
        "-c",
        KILLED,
        str(tiny_model_dir),
        str(tmp_path / "killed"),
        str(Path(__file__).parents[1]),
    ]
    journal = tmp_path / "killed" / "journal.jsonl"
    for _ in range(max(1, trials // 2)):
        known = _lines(journal)
        process = subprocess.Popen(words, cwd=Path(__file__).parents[2])
        while _lines(journal) == known:  # by what it wrote, never by the clock: machines differ
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.wait()
    done = predict(engine, rows, tmp_path / "killed", PredictOptions(generation=SAMPLED))
    assert 0 < done.results["resumed"] < len(rows)
    assert lines_of(tmp_path / "killed") == lines_of(tmp_path / "whole")


class HearsTimeLeft:
    """A progress callback that keeps what it is told."""

    def __init__(self) -> None:
        self.left: list[float | None] = []

    def __call__(self, done: int, total: int | None) -> None: ...

    def time_left(self, seconds: float | None) -> None:
        self.left.append(seconds)


def test_the_time_left_is_told_with_each_answer(engine: Engine, tmp_path: Path) -> None:
    """By an injected clock: four answers of two tokens each, a second a token."""
    moment = [0.0]

    def now() -> float:
        moment[0] += 1.0
        return moment[0]

    heard, options = HearsTimeLeft(), PredictOptions(generation=GenerationSettings(max_new_tokens=2))
    forecast = BatchForecast([AnswersPart(4, 2), AnswersPart(4, 2)], BATCH_ROWS, now)
    rows = [example(i) for i in range(1, 5)]
    predict(engine, rows, tmp_path / "a", replace(options, forecast=forecast), progress=heard)
    assert len(heard.left) == 4
    assert heard.left[0] is None
    assert heard.left[-1]  # the second part
    predict(engine, rows, tmp_path / "b", replace(options, forecast=forecast), progress=heard)
    assert heard.left[-1] == 0
    predict(engine, rows, tmp_path / "c", options, progress=lambda done, total: None)
