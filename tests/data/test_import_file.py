"""Importing: a file and a name suffice; encoding, delimiter and columns are found, shown, and overridable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sartor.base.errors import DataError
from sartor.data.import_file import ImportOptions, import_file, inspect_file
from sartor.data.load import load

GBK = (
    ",问题,答案\n0,《傲慢与偏见》是谁写的?,简·奥斯丁。\n"
    "1,彭伯里的主人是谁?,达西先生。\n2,伊丽莎白有几个姐妹?,四个姐妹。\n"
)


def csv_file(folder: Path, text: str = GBK, encoding: str = "gbk", name: str = "qa.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_gbk_csv_needs_only_a_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    imported = import_file(csv_file(tmp_path), "pride", data)
    assert imported.inspection.encoding == "gb18030"
    assert imported.inspection.mapping == {"question": "问题", "answer": "答案"}
    assert [row["conversations"][0]["value"] for row in json.loads((data / "pride.json").read_text("utf-8"))] == [
        "《傲慢与偏见》是谁写的?",
        "彭伯里的主人是谁?",
        "伊丽莎白有几个姐妹?",
    ]
    assert json.loads((data / "dataset_info.json").read_text("utf-8"))["pride"]["formatting"] == "sharegpt"
    assert len(load("pride", data).examples) == 3


def test_alpaca_and_sharegpt_hold_the_same_conversation(tmp_path: Path) -> None:
    path = csv_file(tmp_path)
    one = import_file(path, "one", tmp_path / "data", ImportOptions(format="alpaca"))
    two = import_file(path, "two", tmp_path / "data", ImportOptions(format="sharegpt"))
    texts = [[[m.text for m in e.messages] for e in i.loaded.examples] for i in (one, two)]  # type: ignore[union-attr]
    assert texts[0] == texts[1]


def test_semicolons_tabs_and_named_columns(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "id;frage;antwort\n1;Wer?;Jane Austen\n", "utf-8")
    imported = import_file(
        path, "de", tmp_path / "data", ImportOptions(columns={"question": "frage", "answer": "antwort"})
    )
    assert imported.inspection.delimiter == ";"
    assert len(imported.loaded.examples) == 1


def test_a_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "question,answer\nQ,A\n", "utf-8")
    with pytest.raises(DataError) as caught:
        import_file(path, "x", tmp_path / "data", ImportOptions(columns={"question": "qestion", "answer": "answer"}))
    assert "question" in str(caught.value.fix)
    assert not (tmp_path / "data").exists()


def test_a_wrong_encoding_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Byte"):
        import_file(csv_file(tmp_path), "x", tmp_path / "data", ImportOptions(encoding="utf-8"))
    assert not (tmp_path / "data").exists()


def test_rows_without_an_answer_are_skipped_by_name_and_not_written(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "question,answer\nQ1,A1\nQ2,\nQ3,A3\n", "utf-8")
    imported = import_file(path, "x", tmp_path / "data")
    assert [(s.origin.row, s.origin.file, s.code) for s in imported.loaded.skipped] == [(2, "qa.csv", "answer-missing")]
    assert imported.loaded.ledger.balanced


@pytest.mark.parametrize("content", ["", "question,answer\n"])
def test_a_file_without_rows_says_so(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError):
        import_file(csv_file(tmp_path, content, "utf-8"), "x", tmp_path / "data")


def test_a_sharegpt_file_is_known_and_kept(tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "system": " ", "tools": " "}
    ]
    path = tmp_path / "chats.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert inspect_file(path).entry is not None
    imported = import_file(path, "chats", tmp_path / "data")
    assert len(imported.loaded.examples) == 1


@pytest.mark.parametrize("name", ["../up", "a b", "", ".hidden"])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="Invalid dataset name"):
        import_file(csv_file(tmp_path), name, tmp_path / "data")


def test_messages_with_tool_calls_are_imported_as_they_stand(tmp_path: Path) -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "A"},
    ]
    path = csv_file(tmp_path, json.dumps({"messages": turns}) + "\n", "utf-8", "calls.jsonl")
    imported = import_file(path, "calls", tmp_path / "data")
    assert imported.entry["formatting"] == "openai"
    assert (len(imported.loaded.examples), imported.loaded.skipped) == (1, ())


def test_the_delimiter_that_a_person_names_wins_over_the_one_found(tmp_path: Path) -> None:
    """Both signs part every row evenly; only a person knows that the semicolons are text."""
    path = csv_file(tmp_path, "a;b;question|answer\n1;2;Q1|A1\n3;4;Q2|A2\n", "utf-8")
    with pytest.raises(DataError, match="Could not determine"):
        inspect_file(path)
    understood = inspect_file(path, ImportOptions(delimiter="|"))
    assert (understood.delimiter, understood.columns) == ("|", ("a;b;question", "answer"))
    imported = import_file(path, "x", tmp_path / "data", ImportOptions(delimiter="|"))
    assert [[m.text for m in e.messages] for e in imported.loaded.examples] == [["1;2;Q1", "A1"], ["3;4;Q2", "A2"]]


@pytest.mark.parametrize("delimiter", ["", "||", '"', "\n"])
def test_an_invalid_delimiter_is_refused(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(DataError, match="Invalid delimiter"):
        inspect_file(csv_file(tmp_path), ImportOptions(delimiter=delimiter))


def test_a_file_without_cells_refuses_a_delimiter(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="have no delimiter"):
        inspect_file(
            csv_file(tmp_path, '[{"question": "Q", "answer": "A"}]', "utf-8", "qa.json"), ImportOptions(delimiter=",")
        )
