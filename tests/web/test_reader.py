"""The page reads data in other processes: what they answer, that they may die, and that only values come back."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import ConfigError, DataError, SartorError
from sartor.base.i18n import tr
from sartor.base.types import Ledger, Origin, Skipped
from sartor.data.json_stream import LiteralNumber
from sartor.web import wire
from sartor.web.reader import Reader
from sartor.web.reading_process import Readings, answer
from sartor.web.shown import JsonText, ReadingChoices, ShownDataset, by_code
from sartor.web.workspace import Workspace
from support.spreadsheets import as_xlsx


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "data").mkdir()
    rows = [{"instruction": f"question {n}", "output": "" if n == 3 else f"answer {n}"} for n in range(1, 8)]
    (tmp_path / "data" / "d.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "data" / "dataset_info.json").write_text('{"d": {"file_name": "d.json"}}', encoding="utf-8")
    (tmp_path / "table.csv").write_text("question,answer\nq,a\n", encoding="utf-8")
    return Workspace(tmp_path)


@pytest.fixture
def reader(workspace: Workspace) -> Iterator[Reader]:
    made = Reader(workspace)
    yield made
    made.close()


VALUES = (
    None,
    True,
    1.5,
    "中\ud800",
    [1, "a", None],
    ("a", ("b",)),
    {"a": {"b": [1]}},
    {"@": "Text", "values": {"message": "x"}},
    {1: "a"},
    Path("a/b"),
    LiteralNumber("1.10"),
    JsonText("[1]"),
    Origin("d", "f", 1, 2),
    Skipped(Origin("d", "f", 1), "row-broken", None, {"reason": tr("invalid UTF-8: {error}", error="x")}),
    Ledger(3, 2, skipped=(Skipped(Origin("d", "f", 1), "x"),)),
)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_were(value: Any) -> None:
    line = wire.dumps(value)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert wire.loads(line) == value


@pytest.mark.parametrize("kind", [DataError, ConfigError, SartorError])
def test_errors_come_back_with_their_class_and_messages(kind: type[SartorError]) -> None:
    back = wire.loads(wire.dumps(kind("Unknown dataset {name!r}.", "there", "Do {it}.", code="c", name="x", it="so")))
    assert type(back) is kind
    assert (back.code, str(back)) == ("c", "Unknown dataset 'x'.\nthere\nDo so.")


@pytest.mark.parametrize("kind", ["Popen", "Path", "Reader", "list"])
def test_nothing_else_is_made_of_a_line(kind: str) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        wire.loads(json.dumps({"@": kind, "values": {}}).encode())
    for name in ("Interrupted", "tr", "difflib", "absent"):
        line = json.dumps({"@": "error", "kind": name, "values": {}}).encode()
        assert type(wire.loads(line)) is SartorError


def test_rows_are_asked_for_as_they_are_shown(workspace: Workspace) -> None:
    readings = Readings(workspace)
    shown = readings.dataset("d")
    assert isinstance(shown, ShownDataset)
    assert (shown.usable, shown.skipped_count, shown.ledger.read, shown.ledger.skipped) == (6, 1, 7, ())
    assert [row.origin.row for row in readings.rows("d", [0, 2, 5, 6])] == [1, 4, 7]
    assert readings.find("d", "QUESTION 4") == [2]
    assert readings.position("d", 4) == 2
    assert readings.value("d", "d:3")["instruction"] == "question 3"
    assert readings.inspect("table.csv", ReadingChoices()).rows == 1
    assert readings.first_rows("table.csv", ReadingChoices()) == [{"question": "q", "answer": "a"}]
    done = readings.import_file("table.csv", "t", ReadingChoices(), "refuse")
    assert (done.name, done.read, done.training, done.skipped_count) == ("t", 1, 1, 0)
    assert readings.save_version("d", {"d:3": {"instruction": "question 3", "output": "now"}}) == "d-v2"
    assert readings.dataset("d-v2").skipped_count == 0


@pytest.mark.parametrize("file", ["../x.csv", "/etc/passwd", "data/../../x"])
def test_paths_outside_are_refused(file: str, workspace: Workspace) -> None:
    found = answer(Readings(workspace), {"call": "sheets", "arguments": {"file": file}})
    assert isinstance(found, DataError)
    assert Readings(workspace).first_rows(file, ReadingChoices()) == []
    with pytest.raises(DataError, match="outside the folder of this page"):
        Readings(workspace).inspect(file, ReadingChoices())


def test_only_the_calls_are_calls(workspace: Workspace) -> None:
    for name in ("__init__", "workspace", "cache", "nothing"):
        found = answer(Readings(workspace), {"call": name, "arguments": {}})
        assert str(found.what) == "Unknown call."


def test_no_page_reads_data_in_its_own_process() -> None:
    """What parses files or rows is called in `reading_process` (and the cache that it holds) alone."""
    reading = re.compile(
        r"\b(inspect_file|raw_rows|open_data_file|load_spec|read_examples|read_document|label_view|encode_all|estimate)\("
        r"|\bapi\.(load|check|show|read_rows|read_refused|import_file|save_version|add_row|generate)[(,]"
    )
    own = Path(wire.__file__).parent
    found = {
        file.relative_to(own).as_posix()
        for file in own.rglob("*.py")
        if reading.search(re.sub(r"def \w+", "", file.read_text(encoding="utf-8")))
    }
    assert found == {"reading_process.py", "cache.py", "worker.py"}  # the worker is the process of one job


def test_many_skipped_rows_are_counted_and_some_shown() -> None:
    skipped = tuple(Skipped(Origin("d", "f", n), "a" if n % 2 else "b") for n in range(1001))
    assert [(group.code, group.count, len(group.first)) for group in by_code(skipped)] == [
        ("b", 501, 200),
        ("a", 500, 200),
    ]


@pytest.mark.real
def test_a_process_answers_and_one_that_is_killed_is_started_again(reader: Reader, workspace: Workspace) -> None:
    first = reader.call("dataset", "d", name="d")
    assert first.usable == 6
    child = reader.processes["d"].child
    assert child is not None
    assert reader.call("find", "d", name="d", query="answer 7") == [5]
    assert reader.processes["d"].child is child, "warm"
    with pytest.raises(DataError, match="Unknown dataset"):
        reader.call("dataset", "d", name="e")
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert reader.call("dataset", "d", name="d") == first
    for name in ("1", "2", "3", "4"):
        reader.call("inspect", name, file="table.csv", reading=ReadingChoices())
    assert len(reader.processes) == 3


@pytest.mark.real
def test_a_process_that_dies_while_it_reads_is_an_error_and_not_the_end(
    reader: Reader, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sartor.web.reader.MEMORY_FRACTION", 1e-9)
    long = {"instruction": "q", "output": "x" * 15_000_000}
    (workspace.data / "d.json").write_text(json.dumps([long] * 40), encoding="utf-8")
    with pytest.raises(SartorError) as refused:
        reader.call("dataset", "d", name="d")
    assert refused.value.code in ("file-budget", "error"), "what fails first without memory is chance"
    monkeypatch.setattr("sartor.web.reader.MEMORY_FRACTION", 0.5)
    reader.processes["d"].end()
    assert reader.call("inspect", "d", file="table.csv", reading=ReadingChoices()).rows == 1


def test_one_sheet_is_read_where_it_is_chosen(workspace: Workspace) -> None:
    content = as_xlsx([["text"], ["nothing"]], [["question", "answer"], ["q", "a"]])
    (workspace.folder / "book.xlsx").write_bytes(content)
    readings = Readings(workspace)
    assert readings.sheets("book.xlsx") == ("S1", "S2")
    assert readings.sheets("table.csv") == ()
    with pytest.raises(DataError, match="different columns"):
        readings.inspect("book.xlsx", ReadingChoices())
    chosen = ReadingChoices(sheet="S2")
    assert readings.first_rows("book.xlsx", chosen) == [{"question": "q", "answer": "a"}]
    assert readings.inspect("book.xlsx", wire.loads(wire.dumps(chosen))).stage == "sft"
    assert readings.import_file("book.xlsx", "pairs", chosen, "refuse").training == 1
