"""The rows of an imported dataset are known by their place in the person's own file, for as long as that is certain."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from sartor import api
from sartor.base.errors import DataError
from sartor.base.types import Place
from sartor.data.import_record import ImportedPlaces, read_summary, runs_of
from support.commands import run


def imported(folder: Path, rows: int = 9, empty: tuple[int, ...] = (2, 3, 7), name: str = "mine") -> Path:
    """A table in which some answers are missing, and one covers two lines; returns the dataset folder."""
    lines = [
        f'{n},"a\nb"' if n == 5 else f"question {n},{'' if n in empty else f'answer {n}'}" for n in range(1, rows + 1)
    ]
    (folder / "my table.csv").write_text("question,answer\n" + "\n".join(lines) + "\n", encoding="utf-8")
    api.import_file(folder / "my table.csv", name, dataset_dir=folder / "data")
    return folder / "data"


def places(name: str, data: Path) -> dict[str, str]:
    return {origin.id: str(origin) for origin, _ in api.read_rows(name, data)}


def test_rows_that_were_kept_are_named_by_the_persons_own_file(tmp_path: Path) -> None:
    data = imported(tmp_path)
    assert places("mine", data) == {
        "mine:1": "my table.csv, row 1, line 2 (mine:1)",
        "mine:2": "my table.csv, row 4, line 5 (mine:2)",
        "mine:3": "my table.csv, row 5, line 6 (mine:3)",
        "mine:4": "my table.csv, row 6, line 8 (mine:4)",
        "mine:5": "my table.csv, row 8, line 10 (mine:5)",
        "mine:6": "my table.csv, row 9, line 11 (mine:6)",
    }
    known = [example.origin.imported_from for example in api.load("mine", data).examples]
    assert [place and place.row for place in known] == [1, 4, 5, 6, 8, 9]
    summary = read_summary(data, "mine")
    assert summary is not None
    assert len(summary.places) == 4  # what follows one another is one entry


def test_a_version_keeps_the_places_of_its_rows(tmp_path: Path) -> None:
    data = imported(tmp_path)
    mended = {1: {"question": "question 3", "answer": "answer 3"}}
    turns = {"conversations": [{"from": "human", "value": "new"}, {"from": "gpt", "value": "row"}]}
    changes = {"mine:1": None, "mine:3": turns}
    assert api.save_version("mine", data, changes=changes, added=[turns], repaired=mended) == "mine-v2"
    assert list(places("mine-v2", data).values()) == [
        "my table.csv, row 4, line 5 (mine-v2:1)",
        "my table.csv, row 5, line 6 (mine-v2:2)",
        "my table.csv, row 6, line 8 (mine-v2:3)",
        "my table.csv, row 8, line 10 (mine-v2:4)",
        "my table.csv, row 9, line 11 (mine-v2:5)",
        "mine-v2.json, row 6, line 7",
        "my table.csv, row 3, line 4 (mine-v2:7)",
    ]


@pytest.mark.parametrize("change", ["a row less", "an older record", "no record"])
def test_no_place_is_named_where_it_is_not_certain(tmp_path: Path, change: str) -> None:
    data = imported(tmp_path)
    record = data / "mine.import.jsonl"
    if change == "a row less":
        rows = json.loads((data / "mine.json").read_text(encoding="utf-8"))
        (data / "mine.json").write_text(json.dumps(rows[1:]), encoding="utf-8")
    elif change == "an older record":
        first, *rest = record.read_text(encoding="utf-8").splitlines(keepends=True)
        facts = {k: v for k, v in json.loads(first)["import"].items() if k not in ("places", "dataset_sha256")}
        record.write_text(json.dumps({"import": facts}) + "\n" + "".join(rest), encoding="utf-8")
    else:
        record.unlink()
    assert all(place.startswith("mine.json, row ") for place in places("mine", data).values())


@pytest.mark.parametrize("damage", [[[1, 2]], [["x", None, "y"]], [3], "text", {"a": 1}])
def test_a_damaged_record_is_an_error_that_says_so(tmp_path: Path, damage: object) -> None:
    data = imported(tmp_path)
    record = data / "mine.import.jsonl"
    first, *rest = record.read_text(encoding="utf-8").splitlines(keepends=True)
    facts = {**json.loads(first)["import"], "places": damage}
    record.write_text(json.dumps({"import": facts}) + "\n" + "".join(rest), encoding="utf-8")
    with pytest.raises(DataError, match="record of the import is damaged"):
        api.read_rows("mine", data)


def test_places_read_back(trials: int) -> None:
    drawn = random.Random(7)
    for _ in range(trials * 20):
        given: list[Place | None] = []
        row, line = 0, drawn.choice([None, 1])
        for _ in range(drawn.randrange(1, 30)):
            row += drawn.choice([1, 1, 1, 2, 5])
            line = None if line is None else line + drawn.choice([1, 1, 1, 3])
            given.append(drawn.choice([None, *[Place("f.csv", row, line)] * 4]))
        runs = runs_of(given)
        ends = [sum(count for _, _, count in runs[: n + 1]) for n in range(len(runs))]
        read = ImportedPlaces("f.csv", runs, ends)
        assert [read.of(n + 1) for n in range(len(given))] == given
        assert read.of(len(given) + 1) is None


def test_check_show_and_rejects_name_the_row_of_the_persons_file(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    imported(tmp_path)
    model = f"model_name_or_path={tiny_model_dir}"
    capsys.readouterr()
    assert run("show", "mine", model, "--row", "2") == 0
    assert "mine:2 (my table.csv, row 4, line 5)" in capsys.readouterr().out
    assert run("check", "mine", model, "cutoff_len=20", "--rejects", "rejects.jsonl", "--json") == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"file": "my table.csv", "row": 4, "line": 5} in [found["imported_from"] for found in findings]
    rejects = [json.loads(line) for line in Path("rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(r["file"], r["row"]) for r in rejects] == [("my table.csv", row) for row in (1, 4, 5, 6, 8, 9, 2, 3, 7)]
    assert run("check", "mine", model, "cutoff_len=20") == 1
    assert "my table.csv, row 4, line 5 (mine:2)" in capsys.readouterr().out
    assert run("train", "dataset=mine", model, "cutoff_len=20", "use_cpu=true") == 1
    assert "my table.csv, row 1, line 2 (mine:1)" in capsys.readouterr().err
