"""Bad and hostile input: a row is skipped with its reason, or the file is refused with a place; nothing else."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sartor.base.errors import DataError, SartorError
from sartor.base.permissions import Permissions
from sartor.base.types import Demonstration
from sartor.data.dataset_info import KEYS, parse_entry, read_registry
from sartor.data.dataset_spec import COLUMNS, TAGS
from sartor.data.encoding import decode
from sartor.data.load import Loaded, load, load_spec

ASK, SAY = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}
GOOD = {"alpaca": {"instruction": "Q", "output": "A"}, "sharegpt": {"conversations": [ASK, SAY]}}
ALL = {"history": "history", "system": "system", "tools": "tools"}


def read(folder: Path, content: bytes, name: str = "x.json", **keys: Any) -> Loaded:
    (folder / name).write_bytes(content)
    return load_spec(parse_entry("x", {"file_name": name, **keys}, folder / "dataset_info.json"))


def talk(*turns: Any, **more: Any) -> dict[str, Any]:
    return {"conversations": list(turns), **more}


DAMAGED: list[tuple[str, Any, str]] = [
    ("alpaca", None, "row-not-object"),
    ("alpaca", 7, "row-not-object"),
    ("alpaca", True, "row-not-object"),
    ("alpaca", "text", "row-not-object"),
    ("alpaca", [], "row-not-object"),
    ("alpaca", [GOOD["alpaca"]], "row-not-object"),
    ("alpaca", {}, "prompt-missing"),
    ("alpaca", {"output": "A"}, "prompt-missing"),
    ("alpaca", {"instruction": "", "output": "A"}, "prompt-missing"),
    ("alpaca", {"instruction": " \n", "input": "\t", "output": "A"}, "prompt-missing"),
    ("alpaca", {"instruction": None, "output": "A"}, "prompt-missing"),
    ("alpaca", {"instruction": float("nan"), "output": "A"}, "prompt-missing"),
    ("alpaca", {"instruction": ["Q"], "output": "A"}, "cell-not-text"),
    ("alpaca", {"instruction": {"q": "Q"}, "output": "A"}, "cell-not-text"),
    ("alpaca", {"instruction": "Q"}, "answer-missing"),
    ("alpaca", {"instruction": "Q", "output": ""}, "answer-missing"),
    ("alpaca", {"instruction": "Q", "output": "\u3000"}, "answer-missing"),
    ("alpaca", {"instruction": "Q", "output": None}, "answer-missing"),
    ("alpaca", {"instruction": "Q", "output": float("nan")}, "answer-missing"),
    ("alpaca", {"instruction": "Q", "output": []}, "cell-not-text"),
    ("alpaca", {"instruction": "Q", "output": "\ud800"}, "broken-unicode"),
    ("alpaca", {"instruction": "\udfff", "output": "A"}, "broken-unicode"),
    ("alpaca", {**GOOD["alpaca"], "system": ["S"]}, "cell-not-text"),
    ("alpaca", {**GOOD["alpaca"], "history": "Q A"}, "history-malformed"),
    ("alpaca", {**GOOD["alpaca"], "history": [["Q"]]}, "history-malformed"),
    ("alpaca", {**GOOD["alpaca"], "history": [["Q", "A", "B"]]}, "history-malformed"),
    ("alpaca", {**GOOD["alpaca"], "history": [["Q", None]]}, "cell-not-text"),
    ("alpaca", {**GOOD["alpaca"], "tools": "{oops"}, "tools-invalid"),
    ("alpaca", {**GOOD["alpaca"], "tools": [1]}, "tools-invalid"),
    ("alpaca", {**GOOD["alpaca"], "tools": 7}, "tools-invalid"),
    ("sharegpt", {}, "messages-missing"),
    ("sharegpt", talk(), "messages-missing"),
    ("sharegpt", {"conversations": "Q A"}, "messages-missing"),
    ("sharegpt", {"conversations": {"from": "human"}}, "messages-missing"),
    ("sharegpt", talk("Q", "A"), "turn-malformed"),
    ("sharegpt", talk({"role": "user", "content": "Q"}, SAY), "turn-malformed"),
    ("sharegpt", talk({"from": "wizard", "value": "Q"}, SAY), "role-unknown"),
    ("sharegpt", talk({"from": None, "value": "Q"}, SAY), "role-unknown"),
    ("sharegpt", talk({"from": "human"}, SAY), "turn-empty"),
    ("sharegpt", talk(ASK, {"from": "gpt", "value": " "}), "turn-empty"),
    ("sharegpt", talk(ASK, {"from": "gpt", "value": ["A"]}), "cell-not-text"),
    ("sharegpt", talk(ASK, {**SAY, "loss": "no"}), "loss-invalid"),
    ("sharegpt", talk(ASK), "no-answer-turn"),
    ("sharegpt", talk({"from": "system", "value": "S"}), "no-answer-turn"),
    ("sharegpt", talk(ASK, {"from": "function_call", "value": "f()"}), "call-invalid"),
    ("sharegpt", talk(ASK, {"from": "function_call", "value": '{"arguments": {}}'}), "call-invalid"),
    ("sharegpt", talk(ASK, {"from": "function_call", "value": '{"name": "f", "arguments": [1]}'}), "call-invalid"),
    ("sharegpt", talk(ASK, SAY, tools="[[]]"), "tools-invalid"),
]


@pytest.mark.parametrize(("formatting", "row", "code"), DAMAGED)
def test_a_damaged_row_is_skipped_with_its_reason_and_its_neighbours_stay(
    formatting: str, row: Any, code: str, tmp_path: Path
) -> None:
    columns = ALL if formatting == "alpaca" else {"system": "system", "tools": "tools"}
    rows = json.dumps([GOOD[formatting], row, GOOD[formatting]]).encode()
    loaded = read(tmp_path, rows, formatting=formatting, columns=columns)
    (skipped,) = loaded.skipped
    assert (skipped.origin.row, skipped.code, len(loaded.examples)) == (2, code, 2)
    assert str(skipped.reason)
    assert str(skipped.fix)
    assert loaded.ledger.balanced


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('[{"a": ' + "[" * 100_000 + "]" * 100_000 + "}]", "nested too deeply"),
        ('{"data": ' * 50_000, "nested too deeply"),
        ('[{"instruction": "Q"', "Invalid JSON"),
        ('[{"instruction": "Q', "Invalid JSON"),
        ('[{"instruction": "Q"},', "Invalid JSON"),
        ('[{"instruction": "Q"}', "Invalid JSON"),
        ('[{"instruction": "Q"}]]', "Invalid JSON"),
        ('[{"instruction": "Q"},]', "Invalid JSON"),
        ('[{"instruction": "Q"} {"instruction": "Q"}]', "Invalid JSON"),
        ("[{'instruction': 'Q'}]", "Invalid JSON"),
        ('[{"instruction": "a\nb"}]', "Invalid JSON"),
        ('[{"instruction": "\\x41"}]', "Invalid JSON"),
        ("[// mine\n1]", "Invalid JSON"),
        ('{"data": [1], "data": [2]}', "Invalid JSON"),
        ('{"rows": [1]}', "does not contain a list"),
        ("7", "does not contain a list"),
        ("\0", "NUL"),
    ],
)
def test_hostile_json_is_refused_with_a_place(text: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read(tmp_path, text.encode())
    assert "x.json" in str(caught.value.where)
    assert str(caught.value.fix)


def test_a_line_that_is_hostile_costs_that_line(tmp_path: Path) -> None:
    good = json.dumps(GOOD["alpaca"])
    bad = ["[" * 100_000, "9" * 5000, '{"instruction": "Q", "instruction": "R", "output": "A"}', "{", "\\", good + good]
    loaded = read(tmp_path, "\n".join([good, *bad, good]).encode(), "x.jsonl")
    codes = [(s.origin.line, s.code) for s in loaded.skipped]
    assert codes == [(n, "row-not-object" if n == 3 else "row-broken") for n in range(2, 8)]
    assert len(loaded.examples) == 2


def test_a_duplicate_key_is_reported(tmp_path: Path) -> None:
    loaded = read(
        tmp_path, b'[{"instruction": "Q", "output": "A", "output": "B"}, {"instruction": "Q", "output": "A"}]'
    )
    assert "duplicate key 'output'" in str(loaded.skipped[0].reason)
    registry = tmp_path / "dataset_info.json"
    registry.write_text(
        '{"x": {"file_name": "a"}, "y": {"file_name": "b", "file_name": "c"}, "x": {}}', encoding="utf-8"
    )
    for name, what in (("x", "entry 'x'"), ("y", "key 'file_name'")):
        with pytest.raises(DataError, match=f"Duplicate {what}"):
            read_registry(tmp_path).spec(name)


@pytest.mark.parametrize("name", ["../x.json", "a/../../x.json", "/etc/passwd", "link.json", "linked/x.json", "folder"])
def test_no_file_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([GOOD["alpaca"]]), encoding="utf-8")
    inner = tmp_path / "inner"
    (inner / "folder").mkdir(parents=True)
    (inner / "a").mkdir()
    (inner / "link.json").symlink_to(tmp_path / "x.json")
    (inner / "linked").symlink_to(tmp_path, target_is_directory=True)
    (inner / "folder" / "x.json").symlink_to(tmp_path / "x.json")
    spec = parse_entry("x", {"file_name": name}, inner / "dataset_info.json")
    with pytest.raises(DataError, match="outside"):
        load_spec(spec)
    if not name.startswith("/"):
        assert len(load_spec(spec, permissions=Permissions(allow_outside=True)).examples) == 1


@pytest.mark.parametrize("name", ["x\0.json", "", " ", ".", "x.exe", "x.json/y", "loop.json", "a" * 5000])
def test_odd_file_names_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]", encoding="utf-8")
    (tmp_path / "x.exe").write_bytes(b"MZ")
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "dataset_info.json").write_text(json.dumps({"x": {"file_name": name}}), encoding="utf-8")
    with pytest.raises(DataError):
        load("x", tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    spec = parse_entry("x", {"file_name": "x.json"}, tmp_path / "dataset_info.json")
    caught: list[BaseException] = []

    def run() -> None:
        try:
            load_spec(spec)
        except DataError as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert [str(error).splitlines()[0] for error in caught] == ["Not a regular file."]


CHINESE = "问题,答案\n《傲慢与偏见》是谁写的?,简奥斯丁,一位英国女作家。\n" * 6
JAPANESE = "質問,答え\n高慢と偏見は誰が書きましたか,ジェーン・オースティンというイギリスの作家です。\n" * 6
KOREAN = "질문,답변\n오만과 편견은 누가 썼나요,제인 오스틴이라는 영국의 작가입니다.\n" * 6
ENCODINGS = {
    "utf-8": CHINESE,
    "gb2312": CHINESE,
    "gbk": CHINESE,
    "gb18030": CHINESE,
    "utf-16-le": CHINESE,
    "utf-16-be": CHINESE,
    "utf-32-le": CHINESE,
    "utf-32-be": CHINESE,
    "shift_jis": JAPANESE,
    "euc_jp": JAPANESE,
    "iso2022_jp": JAPANESE,
    "euc_kr": KOREAN,
    "cp949": KOREAN,
}


KINDS = {
    "csv": lambda text: text,
    "txt": lambda text: text.replace("\n", "。\n\n").replace(",", " "),
    "json": lambda text: json.dumps([dict([line.split(",", 1)]) for line in text.splitlines()], ensure_ascii=False),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_thirteen_encodings_are_read_rightly_or_asked_about(encoding: str, marked: bool, kind: str) -> None:
    text = KINDS[kind](ENCODINGS[encoding])
    has_mark = marked and encoding.startswith(("utf", "gb18030"))  # the others cannot write one
    content = ("\ufeff" * has_mark + text).encode(encoding)
    assert decode(content, f"x.{kind}", encoding).text == text
    try:
        found = decode(content, f"x.{kind}").text
    except DataError as error:
        assert "--encoding" in str(error.fix)  # noqa: PT017
    else:
        assert found.removeprefix("\ufeff") == text


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
WORDS = [
    "instruction",
    "input",
    "output",
    "history",
    "system",
    "tools",
    "conversations",
    "messages",
    "from",
    "value",
    "role",
    "content",
    "tool_calls",
    "loss",
    "weight",
]
TURNS = st.lists(
    st.dictionaries(st.sampled_from(WORDS), VALUES | st.sampled_from(["human", "gpt", "user", "tool"])), max_size=4
)


@FUZZ
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(WORDS), VALUES | TURNS) | VALUES, max_size=6),
    formatting=st.sampled_from(["alpaca", "sharegpt", "openai"]),
)
def test_any_json_becomes_rows_or_reasons(rows: list[Any], formatting: str, tmp_path: Path) -> None:
    try:
        loaded = read(
            tmp_path, json.dumps(rows).encode(), formatting=formatting, columns={"system": "system", "tools": "tools"}
        )
    except DataError:
        return
    assert loaded.ledger.balanced
    assert loaded.ledger.read == len(rows)
    for example in loaded.examples:
        assert isinstance(example, Demonstration)
        assert all(isinstance(message.text, str) and message.text.encode() is not None for message in example.messages)
    assert all(skipped.reason and str(skipped.fix) for skipped in loaded.skipped)


@FUZZ
@given(
    content=st.binary(max_size=400),
    name=st.sampled_from(
        ["json", "jsonl", "csv", "tsv", "txt", "parquet", "arrow", "xlsx", "json.gz", "csv.zst", "jsonl.xz", "csv.zip"]
    ),
)
def test_any_bytes_are_read_or_refused(content: bytes, name: str, tmp_path: Path) -> None:
    try:
        assert read(tmp_path, content, f"x.{name}").ledger.balanced
    except SartorError as error:
        assert str(error.what)  # noqa: PT017
        assert str(error.where)  # noqa: PT017


@FUZZ
@given(
    entry=st.dictionaries(
        st.sampled_from(sorted(KEYS)) | st.text(max_size=9),
        VALUES | st.dictionaries(st.sampled_from([*COLUMNS, *TAGS]), VALUES),
    )
    | VALUES
)
def test_any_entry_is_understood_or_refused(entry: Any, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"x": entry}), encoding="utf-8")
    try:
        read_registry(tmp_path).spec("x")
    except DataError as error:
        assert str(error.fix) or str(error.where)  # noqa: PT017
