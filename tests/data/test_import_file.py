"""Importing: a file and a name suffice; encoding, delimiter and columns are found, shown, and overridable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sartor import api
from sartor.base.errors import DataError
from sartor.base.types import Demonstration, Document, Feedback, Preference
from sartor.data.import_file import ImportOptions, import_file, inspect_file
from sartor.data.import_record import read_refused
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


def table(folder: Path, *rows: str, name: str = "t.csv") -> Path:
    return csv_file(folder, "\n".join(rows) + "\n", "utf-8", name)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_existing_dataset_is_never_overwritten_without_a_word(tmp_path: Path) -> None:
    data = tmp_path / "data"
    import_file(table(tmp_path, "question,answer", "Q1,A1", "Q2,A2"), "pride", data)
    before = everything(data)
    other = table(tmp_path, "question,answer", "Q9,A9", name="other.csv")
    with pytest.raises(DataError, match="exists already") as caught:
        import_file(other, "pride", data)
    assert caught.value.code == "dataset-exists"
    for way in ("--name", "--new-version", "pride-v2", "--overwrite", ".trash"):
        assert way in str(caught.value.fix)
    assert everything(data) == before


def test_importing_the_same_rows_again_changes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    path = table(tmp_path, "question,answer", "Q1,A1", "Q2,")
    import_file(path, "pride", data)
    before = everything(data)
    again = import_file(path, "pride", data)
    assert (again.name, again.loaded.ledger.read, everything(data)) == ("pride", 2, before)


def test_a_new_version_stands_beside_the_old_dataset(tmp_path: Path) -> None:
    data = tmp_path / "data"
    import_file(table(tmp_path, "question,answer", "Q1,A1"), "pride", data)
    before = everything(data)
    other = table(tmp_path, "question,answer", "Q9,A9", name="other.csv")
    made = import_file(other, "pride", data, ImportOptions(existing="version"))
    assert made.name == "pride-v2"
    after = everything(data)
    assert all(after[name] == before[name] for name in before if name != "dataset_info.json")
    assert [len(load(name, data).examples) for name in ("pride", "pride-v2")] == [1, 1]


def test_overwriting_keeps_the_old_rows_and_their_entry(tmp_path: Path) -> None:
    data = tmp_path / "data"
    import_file(table(tmp_path, "question,answer", "Q1,A1"), "pride", data)
    old = (data / "pride.json").read_bytes()
    entry = json.loads((data / "dataset_info.json").read_text("utf-8"))["pride"]
    other = table(tmp_path, "question,answer", "Q9,A9", name="other.csv")
    import_file(other, "pride", data, ImportOptions(existing="overwrite"))
    assert (data / ".trash" / "pride.json-1").read_bytes() == old
    assert json.loads((data / ".trash" / "pride.entry.json-1").read_text("utf-8")) == {"pride": entry}
    assert load("pride", data).examples[0].messages[0].text == "Q9"  # type: ignore[union-attr]


@pytest.mark.parametrize("existing", ["refuse", "overwrite"])
@pytest.mark.parametrize("entries", [{}, {"theirs": {"file_name": "pride.json"}}])
def test_a_file_of_somebody_else_is_never_overwritten(tmp_path: Path, existing: str, entries: object) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "pride.json").write_text("[1]", encoding="utf-8")
    (data / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    before = everything(data)
    with pytest.raises(DataError, match="not only this dataset's") as caught:
        import_file(table(tmp_path, "question,answer", "Q,A"), "pride", data, ImportOptions(existing=existing))  # type: ignore[arg-type]
    assert "pride-v2" in str(caught.value.fix)
    assert everything(data) == before


def test_a_failed_overwrite_puts_the_old_dataset_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    import_file(table(tmp_path, "question,answer", "Q1,A1"), "pride", data)
    before = everything(data)

    def fails(*args: object, **options: object) -> None:
        raise DataError("No.")

    monkeypatch.setattr("sartor.data.import_file.load_spec", fails)
    other = table(tmp_path, "question,answer", "Q9,A9", name="other.csv")
    with pytest.raises(DataError, match="No"):
        import_file(other, "pride", data, ImportOptions(existing="overwrite"))
    assert {name: content for name, content in everything(data).items() if ".trash" not in name} == before


def test_what_was_read_kept_and_refused_stays_with_the_dataset(tmp_path: Path) -> None:
    data = tmp_path / "data"
    path = table(tmp_path, "question,answer,by", "Q1,A1,x", "Q2,,y", "Q3,A3", "Q4,A4,z")
    import_file(path, "pride", data)
    loaded = load("pride", data)
    assert loaded.imported is not None
    assert (loaded.imported.read, loaded.imported.kept, loaded.imported.refused) == (4, 2, 2)
    assert [note.code for note in loaded.ledger.notes] == ["refused-at-import"]
    assert "4 rows of t.csv, 2 were kept at import and 2 refused" in str(loaded.ledger.notes[0])
    refused = read_refused(data, "pride")
    assert [(row.row, row.line, row.code) for row in refused] == [(2, 3, "answer-missing"), (3, 4, "row-broken")]
    assert (refused[0].data, refused[1].text) == ({"question": "Q2", "answer": "", "by": "y"}, "Q3,A3")
    assert "2 cells, but the header has 3" in str(refused[1].reason)


def test_a_mended_row_makes_a_version_that_remembers_the_others(tmp_path: Path) -> None:
    data = tmp_path / "data"
    path = table(tmp_path, "question,answer,by", "Q1,A1,x", "Q2,,y", "Q3,A3", "Q4,A4,z", name="t.csv")
    import_file(path, "pride", data)
    repaired = {0: {"question": "Q2", "answer": "now", "by": "y"}}
    assert api.save_version("pride", data, changes={}, repaired=repaired) == "pride-v2"
    loaded = load("pride-v2", data)
    assert loaded.imported is not None
    assert (loaded.imported.read, loaded.imported.refused, loaded.imported.repaired) == (4, 2, 1)
    assert [row.repaired for row in read_refused(data, "pride-v2")] == [True, False]
    assert json.loads((data / "pride-v2.json").read_text("utf-8"))[-1]["by"] == "y"
    with pytest.raises(DataError, match="no answer"):
        api.save_version("pride-v2", data, changes={}, repaired={1: {"question": "Q3", "answer": " "}})
    assert not (data / "pride-v3.json").exists()
    assert api.save_version("pride-v2", data, changes={"pride-v2:1": None}) == "pride-v3"
    assert len(read_refused(data, "pride-v3")) == 2


def test_a_version_keeps_the_text_of_rows_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"instruction": "Q", "output": "A"}\n{"instruction": "lost?\n', encoding="utf-8")
    (tmp_path / "dataset_info.json").write_text('{"d": {"file_name": "d.jsonl"}}', encoding="utf-8")
    assert api.save_version("d", tmp_path, changes={}) == "d-v2"
    assert [row.text for row in read_refused(tmp_path, "d-v2")] == ['{"instruction": "lost?']
    assert load("d-v2", tmp_path).imported.read == 2  # type: ignore[union-attr]


def test_keeping_an_answer_never_replaces_a_file_or_a_row(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match="not only this dataset's"):
        api.add_row("kept", tmp_path, {"conversations": []})
    assert (tmp_path / "kept.json").read_text("utf-8") == "[1]"


DPO = {"instruction": "Q", "input": "", "chosen": "good", "rejected": "bad"}
TURN = {"from": "human", "value": "Q"}
RANKED = {
    "conversations": [TURN],
    "chosen": {"from": "gpt", "value": "good"},
    "rejected": {"from": "gpt", "value": "bad"},
}
TALK = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}


@pytest.mark.parametrize(
    ("row", "stage", "kind"),
    [
        (DPO, "dpo", Preference),
        (RANKED, "dpo", Preference),
        ({"prompt": "Q", "chosen": "good", "rejected": "bad"}, "dpo", Preference),
        ({"instruction": "Q", "output": "A", "kto_tag": True}, "kto", Feedback),
        (TALK | {"label": False}, "kto", Feedback),
        (TALK | {"label": "news"}, "sft", Demonstration),
        ({"text": "Once upon a time.", "url": "http://x"}, "pt", Document),
    ],
)
def test_preferences_ratings_and_documents_are_imported_as_such(
    tmp_path: Path, row: dict[str, object], stage: str, kind: type
) -> None:
    path = csv_file(tmp_path, json.dumps([row, row]), "utf-8", "rows.json")
    imported = import_file(path, "x", tmp_path / "data")
    assert imported.inspection.stage == stage
    assert [type(example) for example in load("x", tmp_path / "data", stage=stage).examples] == [kind, kind]
    if "url" in row:
        assert json.loads((tmp_path / "data" / "x.json").read_text("utf-8"))[0]["url"] == "http://x"


@pytest.mark.parametrize("format", ["sharegpt", "alpaca"])
def test_a_table_with_chosen_and_rejected_becomes_preferences(tmp_path: Path, format: str) -> None:
    path = table(tmp_path, "问题,好的回答,差的回答", "首都？,北京,上海", "一样？,是,是")
    imported = import_file(path, "x", tmp_path / "data", ImportOptions(format=format))
    (made,) = imported.loaded.examples
    assert isinstance(made, Preference)
    assert (made.prompt[0].text, made.chosen.text, made.rejected.text) == ("首都？", "北京", "上海")
    assert [s.code for s in imported.loaded.skipped] == ["same-answers"]


def test_a_text_file_is_imported_for_pretraining(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "第一段。\n\n第二段。\n", "utf-8", "novel.txt")
    assert import_file(path, "novel", tmp_path / "data").inspection.stage == "pt"
    assert [e.text for e in load("novel", tmp_path / "data", stage="pt").examples] == ["第一段。", "第二段。"]  # type: ignore[union-attr]
    with pytest.raises(DataError, match="documents") as caught:
        load("novel", tmp_path / "data")
    assert "stage=pt" in str(caught.value.fix)


@pytest.mark.parametrize("format", ["sharegpt", "alpaca"])
def test_other_columns_are_kept_and_never_mistaken_for_fields(tmp_path: Path, format: str) -> None:
    path = table(tmp_path, "question,answer,chapter,output", "Q1,A1,one,x", "Q2,A2,two,y")
    import_file(path, "x", tmp_path / "data", ImportOptions(format=format))
    rows = json.loads((tmp_path / "data" / "x.json").read_text("utf-8"))
    assert [(row["chapter"], row["output_"]) for row in rows] == [("one", "x"), ("two", "y")]
    assert [e.messages[-1].text for e in load("x", tmp_path / "data").examples] == ["A1", "A2"]  # type: ignore[union-attr]
    assert len(api.split("x", tmp_path / "data", by="chapter", val_size=1).saved.held_out) == 1


@pytest.mark.parametrize(
    ("columns", "question", "answer"),
    [
        ("编号,客户提问,标准答复,问题类型", "客户提问", "标准答复"),
        ("序号,业务咨询问题描述,标准话术答复,部门", "业务咨询问题描述", "标准话术答复"),
        ("Ticket ID,Customer Question,Agent Reply,Question Type", "Customer Question", "Agent Reply"),
        ("user_query,model_response,score", "user_query", "model_response"),
        ("标准问题,相似问题,答案", "标准问题", "答案"),
        ("id,frage,antwort", "frage", "antwort"),
    ],
)
def test_usual_column_names_are_found(tmp_path: Path, columns: str, question: str, answer: str) -> None:
    path = table(tmp_path, columns, ",".join("x" for _ in columns.split(",")))
    assert dict(inspect_file(path).mapping) == {"question": question, "answer": answer}


def test_what_cannot_be_known_is_asked_with_what_is_likely(tmp_path: Path) -> None:
    path = table(tmp_path, "甲,乙 栏,丙", "短,这是一个比较长的问句？,这是一个非常非常长的说明，有很多很多字。")
    with pytest.raises(DataError, match="Could not determine") as caught:
        inspect_file(path)
    assert "--question '乙 栏' --answer '丙'" in str(caught.value.fix)


def test_a_folder_names_its_files_or_its_datasets(tmp_path: Path) -> None:
    table(tmp_path, "question,answer", "Q,A")
    with pytest.raises(DataError, match="folder") as caught:
        inspect_file(tmp_path)
    assert "t.csv" in str(caught.value.fix)
    import_file(tmp_path / "t.csv", "x", tmp_path / "data")
    with pytest.raises(DataError, match="datasets already"):
        inspect_file(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file in it"):
        inspect_file(tmp_path / "empty")


@pytest.mark.parametrize("options", [ImportOptions(), ImportOptions(columns={"question": "q", "answer": "a"})])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[{"q": "Who?", "a": "I.", "q": "You?"}]', r"Row 1: The row cannot be read .duplicate key 'q'"),
        ('{"q": "Who?", "a": "I.", "a": "You."}\n', r"Row 1: The row cannot be read .duplicate key 'a'"),
        ('["Who?", "I."]', r"Row 1: The row is of type str"),
    ],
)
def test_a_file_without_one_readable_row_says_what_is_wrong_with_it(
    tmp_path: Path, text: str, fault: str, options: ImportOptions
) -> None:
    path = tmp_path / ("rows.jsonl" if text.endswith("\n") else "rows.json")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=fault):
        import_file(path, "mine", tmp_path / "data", options)
