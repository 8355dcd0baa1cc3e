"""JSON row by row: where a read ends changes nothing, numbers keep their text, and the work grows with the length."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from sartor.data import json_stream
from sartor.data.json_rows import row_text
from sartor.data.json_stream import ArrayReader, LineReader, duplicates_of, is_too_deep, parse_json
from sartor.data.load import load

NUMBERS = "[0, -1, 1.5, 1e5, 1E+5, 1.5e-7, -0, 1.10, 123456789012345678901234567890, 1e999, -12.0E+10]"


def rows_of(text: str) -> list[Any]:
    return [row.value for row in ArrayReader(io.StringIO(text), "x").rows()]


@pytest.mark.parametrize(
    "text", [NUMBERS, '[{"a": [1.5e-7, true, null, "\\ud83d\\ude00\\n"]}, -0.5E+3]', "[[1.25], 1.5]"]
)
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7])
def test_where_a_read_ends_changes_nothing(monkeypatch: pytest.MonkeyPatch, text: str, chunk: int) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    assert rows_of(text) == json.loads(text)


def test_numbers_keep_the_text_of_the_file(tmp_path: Path) -> None:
    assert row_text(rows_of(f"[{NUMBERS}]")[0]) == NUMBERS
    long = "9" * 5000
    (tmp_path / "d.jsonl").write_text(
        "".join(f'{{"instruction": "Q", "output": {n}}}\n' for n in ("1.10", "1e999", "-0", long)), encoding="utf-8"
    )
    (tmp_path / "dataset_info.json").write_text('{"d": {"file_name": "d.jsonl"}}', encoding="utf-8")
    loaded = load("d", tmp_path)
    assert [e.messages[-1].text for e in loaded.examples] == ["1.10", "1e999", "-0", long]  # type: ignore[union-attr]
    assert [(note.code, note.count) for note in loaded.ledger.notes] == [("number-as-text", 4)]


class CountedKey(str):
    """A key that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        CountedKey.compared += 1
        return str.__eq__(self, other)


def test_duplicate_keys_are_found_in_linear_work() -> None:
    count = 2000
    pairs = [(CountedKey(f"k{n}"), n) for n in range(count)] + [(CountedKey("k7"), 0), (CountedKey("k3"), 0)]
    CountedKey.compared = 0
    assert duplicates_of(pairs) == ("k3", "k7")
    assert CountedKey.compared <= 4 * count
    keys = ", ".join(f'"k{n % 59_999}": 0' for n in range(60_000))
    assert LineReader().read(f"{{{keys}}}", 1, 1).fault is not None
    assert parse_json(f"{{{keys}}}", "x").duplicate_keys == ("k0",)


@pytest.mark.parametrize("depth", [100, 101, 900])
def test_a_row_that_is_nested_too_deeply_costs_that_row(depth: int) -> None:
    text = f'[{{"instruction": {"[" * (depth - 1)}{"]" * (depth - 1)}}}, 1]'
    first, second = ArrayReader(io.StringIO(text), "x").rows()
    assert (first.fault is None) == (depth <= 100) == (not is_too_deep(json.loads(text)[0]))
    assert second.value == 1
    if first.fault:
        assert first.text == text[1 : text.rindex(",")]
