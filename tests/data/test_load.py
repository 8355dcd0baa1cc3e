"""Loading: every row is an example or a skipped row with its reason; nothing is lost, nothing aborts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import DataError
from sartor.base.permissions import Permissions
from sartor.base.settings import DataSettings
from sartor.base.types import Demonstration, Example, Origin
from sartor.data.dataset_info import parse_entry
from sartor.data.formats import FORMATS
from sartor.data.load import Loaded, load, load_many
from sartor.data.split import split
from sartor.data.validate import Notes


def dataset(folder: Path, content: Any, entry: dict[str, Any] | None = None, file: str = "mine.json") -> Path:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    (folder / file).write_text(text, encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": file, **(entry or {})}}), "utf-8")
    return folder


def turns(example: Example) -> tuple[str, ...]:
    assert isinstance(example, Demonstration)
    return tuple(f"{m.role}: {m.text}" for m in example.messages)


def codes(loaded: Loaded) -> list[tuple[int, str, str | None]]:
    return [(s.origin.row, s.code, s.field) for s in loaded.skipped]


@pytest.mark.parametrize("name", FORMATS.names())
def test_each_format_reads_its_own_examples(name: str) -> None:
    format = FORMATS.get(name)
    for row, keys, expected in sys.modules[type(format).__module__].EXAMPLES:
        spec = parse_entry("x", {"file_name": "x.json", "formatting": name, **keys}, Path("dataset_info.json"))
        assert turns(format.parse(row, spec, Origin("x", "x.json", 1), "sft", Notes())) == expected


def test_damaged_rows_are_named_and_nothing_else_is_lost(tmp_path: Path) -> None:
    good = {"instruction": "Q", "output": "A"}
    rows: list[Any] = [
        good,
        {"instruction": "no answer", "output": " "},
        {"instruction": "none", "output": None},
        {"output": "no question"},
        {"instruction": "list", "output": ["A"]},
        "text",
        7,
        {"instruction": "a number", "output": 42},
        good,
    ]
    loaded = load("mine", dataset(tmp_path, rows))
    assert codes(loaded) == [
        (2, "answer-missing", "output"),
        (3, "answer-missing", "output"),
        (4, "prompt-missing", "instruction"),
        (5, "cell-not-text", "output"),
        (6, "row-not-object", None),
        (7, "row-not-object", None),
    ]
    assert [turns(e)[-1] for e in loaded.examples] == ["assistant: A", "assistant: 42", "assistant: A"]
    assert loaded.ledger.read == 9
    assert loaded.ledger.balanced
    assert any("number" in str(note).lower() for note in loaded.ledger.notes)
    assert all(s.reason and str(s.fix) for s in loaded.skipped)


def test_nan_in_json_is_a_missing_answer(tmp_path: Path) -> None:
    loaded = load(
        "mine", dataset(tmp_path, '[{"instruction": "Q", "output": NaN}, {"instruction": "Q", "output": "A"}]')
    )
    assert codes(loaded) == [(1, "answer-missing", "output")]


def test_blank_system_and_tools_mean_none(tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "system": " ", "tools": " "}
    ]
    entry = {"formatting": "sharegpt", "columns": {"messages": "conversations", "system": "system", "tools": "tools"}}
    loaded = load("mine", dataset(tmp_path, rows, entry))
    (example,) = loaded.examples
    assert turns(example) == ("user: Q", "assistant: A")
    assert isinstance(example, Demonstration)
    assert example.tools == ()
    assert len(loaded.ledger.notes) == 2


def test_jsonl_and_csv_rows_carry_their_line(tmp_path: Path) -> None:
    text = '{"instruction": "Q", "output": "A"}\n\n{"instruction": "Q", oops}\n{"instruction": "Q2", "output": "A2"}\n'
    loaded = load("mine", dataset(tmp_path, text, file="mine.jsonl"))
    assert [(e.origin.row, e.origin.line) for e in loaded.examples] == [(1, 1), (3, 4)]
    assert [(s.origin.line, s.code) for s in loaded.skipped] == [(3, "row-broken")]
    text = 'instruction,output\n"two\nlines",A\nQ,"with, comma and ""quotes"""\n'
    loaded = load("mine", dataset(tmp_path, text, file="mine.csv"))
    assert [turns(e) for e in loaded.examples] == [
        ("user: two\nlines", "assistant: A"),
        ("user: Q", 'assistant: with, comma and "quotes"'),
    ]


def test_a_missing_column_names_those_there_are_and_the_nearest(tmp_path: Path) -> None:
    folder = dataset(
        tmp_path, [{"question": "Q", "answer": "A"}], {"columns": {"prompt": "qestion", "response": "answer"}}
    )
    with pytest.raises(DataError) as caught:
        load("mine", folder)
    assert "qestion" in (str(caught.value.what))
    assert "'question'" in str(caught.value.fix)
    assert "answer" in str(caught.value.fix)


def test_a_file_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    folder = dataset(tmp_path, [{"instruction": "Q", "output": "A"}], file="pride_conversations.json")
    info = json.dumps({"mine": {"file_name": "pride_conversation.json"}})
    (folder / "dataset_info.json").write_text(info, encoding="utf-8")
    with pytest.raises(DataError, match=r"pride_conversations\.json"):
        load("mine", folder)


@pytest.mark.parametrize("content", ["", "[]", "  \n"])
def test_an_empty_file_says_so(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError):
        load("mine", dataset(tmp_path, content))


def test_files_outside_the_folder_need_permission(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    dataset(tmp_path, [{"instruction": "Q", "output": "A"}], file="secret.json")
    dataset(inner, "[]")
    info = json.dumps({"mine": {"file_name": "../secret.json"}})
    (inner / "dataset_info.json").write_text(info, encoding="utf-8")
    with pytest.raises(DataError, match="outside"):
        load("mine", inner)
    assert len(load("mine", inner, permissions=Permissions(allow_outside=True)).examples) == 1


def test_the_hash_of_the_entry_is_verified(tmp_path: Path) -> None:
    folder = dataset(tmp_path, [{"instruction": "Q", "output": "A"}], {"file_sha1": "0" * 40})
    with pytest.raises(DataError, match="SHA1"):
        load("mine", folder)


def test_a_sample_is_seeded_in_file_order_and_counted(tmp_path: Path) -> None:
    folder = dataset(tmp_path, [{"instruction": f"Q{i}", "output": "A"} for i in range(50)])
    one, same, other = (load("mine", folder, max_samples=10, seed=seed) for seed in (1, 1, 2))
    rows = [e.origin.row for e in one.examples]
    assert rows == sorted(rows) == [e.origin.row for e in same.examples]
    assert rows != [e.origin.row for e in other.examples]
    assert (one.ledger.training, one.ledger.left_out, one.ledger.balanced) == (10, 40, True)


def test_several_datasets_are_joined_and_their_ledgers_added(tmp_path: Path) -> None:
    folder = dataset(tmp_path, [{"instruction": "Q", "output": "A"}, {"instruction": "Q"}])
    loaded = load_many(["mine", "mine"], DataSettings(dataset_dir=str(folder)))
    assert (len(loaded.examples), loaded.ledger.read, len(loaded.skipped)) == (2, 4, 2)


def test_split_is_seeded_disjoint_and_keeps_repeats_together(tmp_path: Path) -> None:
    folder = dataset(tmp_path, [{"instruction": f"Q{i}", "output": "A"} for i in range(20)])
    examples = load("mine", folder).examples * 2
    parts, same, other = split(examples, 5, 1), split(examples, 0.25, 1), split(examples, 5, 2)
    held_out = {e.origin.id for e in parts.held_out}
    assert (len(held_out), len(parts.held_out), len(parts.train)) == (5, 10, 30)
    assert held_out == {e.origin.id for e in same.held_out}
    assert held_out != {e.origin.id for e in other.held_out}
    assert not held_out & {e.origin.id for e in parts.train}


def test_a_system_column_that_a_system_turn_replaces_is_noted(tmp_path: Path) -> None:
    turns = [{"from": "system", "value": "S1"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    rows = [{"conversations": turns, "system": system} for system in ("S2", "S1", "")]
    (tmp_path / "d.json").write_text(json.dumps(rows), encoding="utf-8")
    entry = {"file_name": "d.json", "formatting": "sharegpt", "columns": {"system": "system"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"d": entry}), encoding="utf-8")
    loaded = load("d", tmp_path)
    assert [(note.code, note.count) for note in loaded.ledger.notes] == [("system-unused", 1)]
    assert [example.messages[0].text for example in loaded.examples] == ["S1"] * 3  # type: ignore[union-attr]
