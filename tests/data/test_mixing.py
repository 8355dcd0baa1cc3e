"""Which rows are used: slices, seeded samples, several datasets interleaved, all counted in the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import ConfigError, DataError
from sartor.base.settings import DataSettings
from sartor.data import mixing
from sartor.data.load import Loaded, load, load_many


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`long` holds 10 rows, of which the fourth is broken; `short` holds 3."""
    for name, count in (("long", 10), ("short", 3)):
        rows: list[Any] = [{"instruction": f"{name} {n}?", "output": str(n)} for n in range(1, count + 1)]
        if name == "long":
            rows[3]["output"] = None
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    write(tmp_path, long={}, short={})
    return tmp_path


def write(folder: Path, **entries: dict[str, Any]) -> None:
    named = {name: {"file_name": f"{name}.json", **entry} for name, entry in entries.items()}
    (folder / "dataset_info.json").write_text(json.dumps(named), encoding="utf-8")


def rows(loaded: Loaded) -> list[str]:
    return [f"{example.origin.dataset[0]}{example.origin.row}" for example in loaded.examples]


def account(loaded: Loaded) -> tuple[int, int, int, int, int]:
    ledger = loaded.ledger
    assert ledger.read == ledger.training + ledger.held_out + ledger.left_out + len(ledger.skipped)
    return ledger.read, ledger.training, ledger.left_out, ledger.repeats, len(ledger.skipped)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", range(10)),
        ("train[:30%]", range(3)),
        ("train[2:4]", range(2, 4)),
        ("train[-2:]", range(8, 10)),
        ("train[25%:75%]", range(2, 8)),
        ("test[ :1]", range(1)),
        ("train[20:]", range(0)),
    ],
)
def test_a_slice_names_rows(split: str, expected: range) -> None:
    assert list(mixing.parse_slice(split, 10, "x")) == list(expected)


@pytest.mark.parametrize("split", ["train[", "train[a:]", "train+test", "", "train[1]"])
def test_an_odd_slice_is_refused(split: str) -> None:
    with pytest.raises(DataError, match="Invalid split"):
        mixing.parse_slice(split, 10, "x")


def test_a_slice_counts_the_rest_as_left_out(folder: Path) -> None:
    write(folder, long={"split": "train[:50%]"})
    loaded = load("long", folder)
    assert rows(loaded) == ["l1", "l2", "l3", "l5"]
    assert account(loaded) == (10, 4, 5, 0, 1)


def test_samples_are_seeded_and_in_the_order_of_the_file(folder: Path) -> None:
    first, again, other = (load("long", folder, max_samples=4, seed=seed) for seed in (1, 1, 2))
    assert rows(first) == rows(again) != rows(other)
    assert [e.origin.row for e in first.examples] == sorted(e.origin.row for e in first.examples)
    assert account(first) == (10, 4, 5, 0, 1)


def test_more_samples_than_rows_repeat_some_after_using_all(folder: Path) -> None:
    write(folder, short={"num_samples": 8})
    loaded = load("short", folder)
    assert len(loaded.examples) == 8
    assert set(rows(loaded)) == {"s1", "s2", "s3"}
    assert account(loaded) == (3, 3, 0, 5, 0)
    assert len(load("short", folder, max_samples=2).examples) == 2


def test_concat_keeps_the_order_of_the_names(folder: Path) -> None:
    loaded = load_many(("short", "long"), DataSettings(dataset_dir=str(folder)))
    assert rows(loaded) == ["s1", "s2", "s3", "l1", "l2", "l3", *(f"l{n}" for n in range(5, 11))]
    assert account(loaded) == (13, 12, 0, 0, 1)


def test_interleaving_stops_with_the_first_or_the_last(folder: Path) -> None:
    under = load_many(("short", "long"), DataSettings(dataset_dir=str(folder), mix_strategy="interleave_under"))
    assert rows(under) == ["s1", "l1", "s2", "l2", "s3"]
    assert account(under) == (13, 5, 7, 0, 1)
    over = load_many(("short", "long"), DataSettings(dataset_dir=str(folder), mix_strategy="interleave_over"))
    assert rows(over)[:8] == ["s1", "l1", "s2", "l2", "s3", "l3", "s1", "l5"]
    assert {row for row in rows(over) if row[0] == "l"} == {f"l{n}" for n in (1, 2, 3, 5, 6, 7, 8, 9, 10)}
    assert account(over) == (13, 12, 0, 6, 1)


def test_probabilities_are_kept() -> None:
    parts = [list(range(3000)), list(range(3000))]
    drawn = mixing.interleave(parts, "interleave_under", (0.8, 0.2), 7)
    share = sum(part == 0 for part, _ in drawn) / len(drawn)
    assert share == pytest.approx(0.8, abs=4 * (0.16 / len(drawn)) ** 0.5)
    assert drawn == mixing.interleave(parts, "interleave_under", (0.8, 0.2), 7)


@pytest.mark.parametrize("probs", [(1.0,), (0.5, 0.6), (1.0, 0.0), (2.0, -1.0)])
def test_probabilities_that_do_not_fit_are_refused(probs: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="does not fit 2 datasets"):
        mixing.interleave([[1], [2]], "interleave_over", probs, 0)
