"""Splits that are saved: groups stay whole, later commands use the same rows, a changed file is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.api.prepare_data import load_named
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, DataError
from sartor.base.settings import DataSettings
from sartor.data.load import load, load_many
from sartor.data.split import read_split, split, split_loaded, split_path

TEXTS = ("the bells of the old church", "a fox under seven hedges", "quartz and zinc in the river", "how to bake rye")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 rows in 8 chapters of 5; the last row repeats the first but for a letter's case."""
    rows: list[dict[str, Any]] = [
        {"instruction": f"{TEXTS[n % 4]} {n * n * 7919}?", "output": f"{n}", "section": f"ch{n // 5}"}
        for n in range(40)
    ]
    rows[-1] |= {"instruction": rows[0]["instruction"].upper(), "output": rows[0]["output"]}
    for name in ("book", "other"):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    entries = {name: {"file_name": f"{name}.json"} for name in ("book", "other")}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    return tmp_path


def sides(folder: Path, **options: Any) -> tuple[set[str], set[str]]:
    divided = api.split("book", folder, **options)
    return set(divided.saved.train), set(divided.saved.held_out)


def test_a_split_by_seed_is_that_of_val_size(folder: Path) -> None:
    expected = split(load("book", folder).examples, 0.25, 7)
    assert sides(folder, val_size=0.25, seed=7)[1] == {example.origin.id for example in expected.held_out}


def test_sections_stay_whole(folder: Path) -> None:
    learned, held_out = sides(folder, val_size=0.25, seed=3, by="section")
    assert (len(learned), len(held_out), learned & held_out) == (30, 10, set())
    chapter = {example.origin.id: example.origin.section for example in load("book", folder).examples}
    assert not {chapter[row] for row in learned} & {chapter[row] for row in held_out}
    assert sides(folder, val_size=0.25, seed=3, by="section")[1] == held_out
    assert any(sides(folder, val_size=0.25, seed=seed, by="section")[1] != held_out for seed in (4, 5, 6))


def test_named_values_are_held_out_and_what_leaks_is_named(folder: Path) -> None:
    divided = api.split("book", folder, by="section", held_out=["ch7"])
    assert set(divided.saved.held_out) == {f"book:{n}" for n in range(36, 41)}
    assert [(leak.held_out, leak.train, leak.similarity) for leak in divided.leaks] == [("book:40", "book:1", 1.0)]


def test_later_commands_use_the_saved_rows(folder: Path) -> None:
    _, held_out = sides(folder, by="section", held_out=["ch2"])
    config = RunConfig().replace(dataset_dir=str(folder), max_samples=30)
    loaded = load_named(config, ("book",))
    found = {example.origin.id for example in split_loaded(loaded, 0.5, 1).held_out}
    assert found == held_out & {example.origin.id for example in loaded.examples}
    both = split_loaded(load_many(("other", "book"), DataSettings(dataset_dir=str(folder))), 0.5, 1)
    assert {e.origin.id for e in both.held_out if e.origin.dataset == "book"} == held_out
    assert sum(e.origin.dataset == "other" for e in both.held_out) == 20


def test_a_changed_file_is_noticed(folder: Path) -> None:
    sides(folder)
    (folder / "book.json").write_text('[{"instruction": "a", "output": "b"}]', encoding="utf-8")
    with pytest.raises(DataError, match="have changed since") as refused:
        split_loaded(load("book", folder), 0.0, 1)
    assert "sartor split book" in str(refused.value.fix)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"dataset": "book"}'])
def test_a_damaged_split_is_named(text: str, folder: Path) -> None:
    split_path(folder, "book").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        read_split(folder, "book")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "sektion"}, "No row has the column"),
        ({"by": "section", "held_out": ["ch9"]}, "Unknown group 'ch9'"),
        ({"by": "section", "held_out": [f"ch{n}" for n in range(8)]}, "All 8 groups"),
        ({"val_size": 40}, "all 40 rows"),
        ({"held_out": ["ch1"]}, "needs a column"),
        ({"val_size": 0}, "val_size is 0"),
    ],
)
def test_what_cannot_be_split_is_refused_and_nothing_is_written(
    options: dict[str, Any], said: str, folder: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        api.split("book", folder, **options)
    assert not split_path(folder, "book").exists()


def test_a_name_cannot_lead_elsewhere(tmp_path: Path) -> None:
    assert split_path(tmp_path, "../a:b").parent == tmp_path
