"""The registry: read strictly, every fault with its place and its nearest right word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import DataError
from sartor.data.dataset_info import read_registry, write_entry
from sartor.data.load import load


def registry(folder: Path, content: str | dict[str, Any]) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "dataset_info.json").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("text", "place", "fix"),
    [
        ('{\n  "a": {"file_name": "a.json"}, // mine\n}', "line 2, column", "not allow comments"),
        ('{\n  "a": {"file_name": "a.json"},\n}', "line 3, column 1", "not allow a comma before"),
        ('{"a": ["x",]}', "line 1, column", "not allow a comma before"),
        ('{"a": ', "line 1, column 7", "Fix the JSON"),
    ],
)
def test_broken_json_names_line_and_column_and_the_usual_cause(tmp_path: Path, text: str, place: str, fix: str) -> None:
    with pytest.raises(DataError) as caught:
        read_registry(registry(tmp_path, text))
    assert place in str(caught.value.where)
    assert fix in str(caught.value.fix)


@pytest.mark.parametrize(
    ("entry", "what", "fix"),
    [
        ({"file_nam": "a.json"}, "Unknown key 'file_nam'", "file_name"),
        ({"file_name": "a.json", "columns": {"promt": "q"}}, "Unknown field 'promt'", "prompt"),
        ({"file_name": "a.json", "tags": {"role_tags": "q"}}, "Unknown tag 'role_tags'", "role_tag"),
        ({"file_name": "a.json", "formatting": "sharegtp"}, "Unknown formatting 'sharegtp'", "sharegpt"),
        ({"file_name": 7}, "value for file_name: 7", "type str"),
        ({"file_name": "a.json", "num_samples": 0}, "at least 1", "Omit it"),
        ({"columns": {}}, "has no source", "file_name"),
        ({"file_name": "a.json", "columns": {"images": "pics"}}, "does not train on images", "Remove columns.images"),
        ("a.json", "not a JSON object", "file_name"),
    ],
)
def test_a_bad_entry_is_named_with_what_to_do(tmp_path: Path, entry: Any, what: str, fix: str) -> None:
    folder = registry(tmp_path, {"mine": entry, "other": {"file_name": "b.json"}})
    with pytest.raises(DataError) as caught:
        read_registry(folder).spec("mine")
    assert what in (str(caught.value.what))
    assert fix in str(caught.value.fix)
    assert "'mine'" in str(caught.value.where)
    assert read_registry(folder).spec("other").file_name == "b.json"  # a bad entry does not affect the others


def test_an_unknown_dataset_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_registry(registry(tmp_path, {"pride_zh": {"file_name": "a.json"}})).spec("prid_zh")
    assert "pride_zh" in str(caught.value.fix)


def test_a_folder_without_a_registry_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sartor import"):
        read_registry(tmp_path)


def test_columns_and_tags_are_merged_onto_the_defaults(tmp_path: Path) -> None:
    entry = {"file_name": "a.json", "formatting": "sharegpt", "columns": {"system": "s"}, "tags": {"user_tag": "me"}}
    spec = read_registry(registry(tmp_path, {"mine": entry})).spec("mine")
    assert (spec.columns["messages"], spec.columns["system"]) == ("conversations", "s")
    assert (spec.tags["role_tag"], spec.tags["user_tag"]) == ("from", "me")


def test_writing_an_entry_keeps_the_others_and_leaves_a_broken_registry_alone(tmp_path: Path) -> None:
    registry(tmp_path, {"old": {"file_name": "o.json", "unknown_to_us": 1}})
    write_entry(tmp_path, "new", {"file_name": "n.json"})
    assert json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8")) == {
        "old": {"file_name": "o.json", "unknown_to_us": 1},
        "new": {"file_name": "n.json"},
    }
    registry(tmp_path, "{ broken")
    with pytest.raises(DataError):
        write_entry(tmp_path, "newer", {"file_name": "n.json"})
    assert (tmp_path / "dataset_info.json").read_text(encoding="utf-8") == "{ broken"


def test_a_missing_file_names_what_lies_there(tmp_path: Path) -> None:
    entry = {"d": {"file_name": "alpaca_zh.json"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entry), encoding="utf-8")

    def fix() -> str:
        with pytest.raises(DataError, match="File not found") as caught:
            load("d", tmp_path)
        return str(caught.value.fix)

    assert "no data file" in fix()
    (tmp_path / "d.import.jsonl").touch()
    (tmp_path / "README").touch()
    (tmp_path / "my_questions.json").touch()
    assert fix() == "Set one of the data files there as file_name: my_questions.json."
    (tmp_path / "alpaca-zh.jsonl.gz").touch()
    assert "Did you mean alpaca-zh.jsonl.gz?" in fix()
    assert "my_questions.json" in fix()
