"""Sources: every kind of file gives the same rows, packed or not, one at a time, in linear time."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from sartor.base import file_budget
from sartor.base.errors import DataError
from sartor.base.i18n import tr
from sartor.base.types import Document
from sartor.data import decompress, json_stream
from sartor.data.dataset_info import parse_entry
from sartor.data.files import raw_rows, sheet_names
from sartor.data.import_file import ImportOptions, import_file, inspect_file
from sartor.data.import_record import read_refused
from sartor.data.load import load, load_spec
from sartor.data.read_rows import read_raw
from sartor.data.sources import SOURCES
from support.spreadsheets import as_xlsx

ROWS = [{"instruction": "《傲慢与偏见》?", "output": "007"}, {"instruction": "two\nlines", "output": "NA"}]


def values(path: Path) -> list[Any]:
    return [str(raw.fault) if raw.fault else raw.value for raw in raw_rows(path)]


@pytest.mark.parametrize("name", SOURCES.names())
def test_each_text_source_reads_its_own_examples(name: str, tmp_path: Path) -> None:
    source = SOURCES.get(name)
    examples = vars(sys.modules[type(source).__module__]).get("EXAMPLES", ())
    for text, expected in examples:
        path = tmp_path / f"x{source.suffixes[0]}"
        path.write_bytes(text.encode())
        assert values(path) == expected
    assert bool(examples) is source.is_text


def as_json(rows: list[Any]) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def as_parquet(rows: list[Any]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), out, row_group_size=1)
    return out.getvalue()


def as_arrow(rows: list[Any], new: Callable[..., Any] = pa.ipc.new_file) -> bytes:
    table, out = pa.Table.from_pylist(rows), io.BytesIO()
    with new(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def as_csv(rows: list[Any], between: str = ",") -> bytes:
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    return "".join(between.join(f'"{cell}"' for cell in line) + "\r\n" for line in lines).encode()


KINDS: dict[str, bytes] = {
    "json": as_json(ROWS),
    "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "csv": as_csv(ROWS),
    "tsv": as_csv(ROWS, "\t"),
    "parquet": as_parquet(ROWS),
    "arrow": as_arrow(ROWS),
    "feather": as_arrow(ROWS, pa.ipc.new_stream),
    "xlsx": as_xlsx([list(ROWS[0]), *(list(row.values()) for row in ROWS)]),
}


def zipped(content: bytes, name: str = "inner") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        archive.writestr(f"__MACOSX/._{name}", b"litter")
    return out.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
    "zip": zipped,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_rows_plain_and_packed(kind: str, tmp_path: Path) -> None:
    plain = tmp_path / f"x.{kind}"
    plain.write_bytes(KINDS[kind])
    assert values(plain) == ROWS
    for ending, pack in PACKERS.items():
        packed = tmp_path / f"x.{kind}.{ending}"
        packed.write_bytes(pack(KINDS[kind]) if ending != "zip" else zipped(KINDS[kind], f"x.{kind}"))
        assert values(packed) == ROWS, packed.name


def test_packed_text_is_read_in_its_own_encoding_and_hashed_as_it_lies(tmp_path: Path) -> None:
    (tmp_path / "x.csv.gz").write_bytes(
        gzip.compress(("问题,答案\n" + "达西先生是谁,彭伯里的主人。\n" * 20).encode("gbk"))
    )
    entry = {"file_name": "x.csv.gz", "columns": {"prompt": "问题", "response": "答案"}}
    loaded = load_spec(parse_entry("x", entry, tmp_path / "dataset_info.json"))
    assert (len(loaded.examples), loaded.files[0].encoding) == (20, "gb18030")
    sums = subprocess.run(["sha256sum", tmp_path / "x.csv.gz"], capture_output=True, text=True, check=True).stdout
    assert loaded.files[0].sha256 == sums.split()[0]


def test_zst_and_gz_of_several_frames_are_read_to_the_end(tmp_path: Path) -> None:
    one, two = b'{"a": 1}\n', b'{"a": 2}\n'
    for ending in ("gz", "zst", "xz", "bz2"):
        pack = PACKERS[ending]
        (tmp_path / f"x.jsonl.{ending}").write_bytes(pack(one) + pack(two))
        assert values(tmp_path / f"x.jsonl.{ending}") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("ending", PACKERS)
def test_a_bomb_is_stopped_and_damage_is_named(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_budget, "FREE_BYTES", 1 << 20)
    monkeypatch.setattr(decompress, "CHUNK", 1 << 16)
    pack: Callable[[bytes], bytes] = PACKERS[ending] if ending != "zip" else lambda b: zipped(b, "x.jsonl")
    path = tmp_path / f"x.jsonl.{ending}"
    path.write_bytes(pack(b" " * (16 << 20)))
    with pytest.raises(DataError, match="decompresses to more than"):
        values(path)
    path.write_bytes(pack(b'{"a": 1}\n' * 99)[:-9])
    with pytest.raises(DataError, match="Could not decompress"):
        values(path)
    path.write_bytes(b"no such packing at all")
    with pytest.raises(DataError, match="Could not decompress"):
        values(path)


def test_cells_of_a_spreadsheet_are_the_text_they_show(tmp_path: Path) -> None:
    path = tmp_path / "x.xlsx"
    path.write_bytes(
        as_xlsx([["问题", "n", "d", "b"], ["q", 7, date(2026, 11, 23), True], ["r", 0.5, "007", False]], [])
    )
    assert values(path) == [
        {"问题": "q", "n": "7", "d": "2026-11-23", "b": "true"},
        {"问题": "r", "n": "0.5", "d": "007", "b": "false"},
    ]
    path.write_bytes(as_xlsx([["a"], ["1"]], [["a"], ["2"]]))
    assert values(path) == [{"a": "1"}, {"a": "2"}]
    path.write_bytes(as_xlsx([["a"], ["1"]], [["b"], ["2"]]))
    with pytest.raises(DataError, match="different columns"):
        values(path)


def test_a_spreadsheet_bomb_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "x.xlsx"
    path.write_bytes(as_xlsx([["a"], [" " * (300 << 20)]]))
    with pytest.raises(DataError, match="decompresses to more than"):
        values(path)


def test_columns_hold_dates_decimals_and_nested_turns(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Q", "loss": None}, {"from": "gpt", "value": "A", "loss": True}]
    row = {"conversations": turns, "day": date(2026, 1, 2), "price": Decimal("1.50")}
    (tmp_path / "x.parquet").write_bytes(as_parquet([row]))
    assert values(tmp_path / "x.parquet") == [{"conversations": turns, "day": "2026-01-02", "price": "1.50"}]
    entry = {"file_name": "x.parquet", "formatting": "sharegpt"}
    assert len(load_spec(parse_entry("x", entry, tmp_path / "dataset_info.json")).examples) == 1


def test_a_text_file_is_paragraphs_for_pretraining(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("One\r\nline.\r\n\r\nTwo.\n", encoding="utf-8", newline="")
    (tmp_path / "dataset_info.json").write_text('{"x": {"file_name": "x.txt"}}', encoding="utf-8")
    examples = load("x", tmp_path, stage="pt").examples
    assert [(e.text, e.origin.line) for e in examples if isinstance(e, Document)] == [("One\nline.", 1), ("Two.", 4)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50])
def test_an_array_is_read_the_same_wherever_it_is_cut(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    rows = [{"a": "x" * 60, "n": -1.5e-7}, 12345, float("inf"), None, '😀 \\ " é', [[], {}], True, 10**30, {}]
    for text in (
        json.dumps(rows),
        json.dumps(rows, indent=2, ensure_ascii=False),
        json.dumps({"k": 1, "data": rows, "z": [2]}),
    ):
        (tmp_path / "x.json").write_text(text, encoding="utf-8")
        assert values(tmp_path / "x.json") == rows
    lines = [raw.line for raw in raw_rows(tmp_path / "x.json")]
    assert lines == [1] * len(rows)
    (tmp_path / "x.json").write_text('[1,\n\n 2, {"a":\n 3},\n4]', encoding="utf-8")
    assert [raw.line for raw in raw_rows(tmp_path / "x.json")] == [1, 3, 3, 5]
    (tmp_path / "x.json").write_text('[{"a": 1},\n  {"a": oops}, ' + '"long", ' * 40 + "1]", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        values(tmp_path / "x.json")
    assert str(caught.value.where).endswith("line 2, column 9")


def test_raw_rows_of_a_dataset_come_one_at_a_time_with_their_faults(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\nbroken\n{"a": 1, "a": 2}\n', encoding="utf-8")
    rows = list(read_raw(parse_entry("x", {"file_name": "x.jsonl"}, tmp_path / "dataset_info.json")))
    assert [(origin.id, raw.line, raw.value) for origin, raw in rows] == [
        ("x:1", 1, {"a": 1}),
        ("x:2", 2, None),
        ("x:3", 3, None),
    ]
    assert rows[2][1].fault == tr("duplicate key {key!r}", key="a")


READ = """
import sys
from pathlib import Path
from sartor.data.dataset_info import parse_entry
from sartor.data.read_rows import read_raw
path = Path(sys.argv[1])
print(sum(1 for _ in read_raw(parse_entry("x", {"file_name": path.name}, path.parent / "dataset_info.json"))))
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])  # ru_maxrss would count the parent
"""


@pytest.mark.real
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_a_million_rows_need_little_memory(kind: str, tmp_path: Path) -> None:
    count = 1_000_000
    path = tmp_path / f"x.{kind}"
    row = {"instruction": "谁是达西先生" * 10, "output": "彭伯里的主人" * 10}
    if kind == "parquet":
        table = pa.table({name: pa.repeat(pa.scalar(text), count) for name, text in row.items()})
        pyarrow.parquet.write_table(table, path, use_dictionary=False)
    elif kind == "csv":
        path.write_bytes(as_csv([row]) + as_csv([row]).split(b"\r\n", 1)[1] * (count - 1))
    else:
        line = json.dumps(row, ensure_ascii=False).encode()
        path.write_bytes(b"[" + (line + b",") * (count - 1) + line + b"]" if kind == "json" else (line + b"\n") * count)
    words = [sys.executable, "-c", READ, str(path)]
    rows, peak_kib = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert (int(rows), path.stat().st_size > 300 << 20 or kind == "parquet") == (count, True)
    assert int(peak_kib) < 600 << 10


@pytest.mark.real
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_a_row_of_200_megabytes_is_refused_and_read_on_request(kind: str, tmp_path: Path) -> None:
    path, size = tmp_path / f"x.{kind}", 200 << 20
    with path.open("wb") as file:
        begin, end = {"csv": (b'instruction,output\nq,"', b'"\n')}.get(
            kind, (b'{"instruction": "q", "output": "', b'"}')
        )
        file.write((b"[" if kind == "json" else b"") + begin)
        for _ in range(size >> 20):
            file.write(b"long " * (1 << 18))
        file.write(end + (b"]" if kind == "json" else b""))
    command, environment = [sys.executable, "-c", READ, str(path)], os.environ | {"SARTOR_FILE_BUDGET": "20"}
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode
    assert "longer than 16 million characters" in refused.stderr
    allowed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    rows, peak_kib = allowed.stdout.split()
    assert int(rows) == 1
    assert int(peak_kib) < 4 << 20


def test_one_sheet_of_a_spreadsheet_can_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(as_xlsx([["about"], ["x"]], [["问题", "答案"], ["Q1", "A1"], [], ["Q2", " "]]))
    with pytest.raises(DataError, match="different columns") as caught:
        inspect_file(path)
    assert "--sheet" in str(caught.value.fix)
    with pytest.raises(DataError, match="No sheet") as caught:
        inspect_file(path, ImportOptions(sheet="S3"))
    assert "S2" in str(caught.value.fix)
    imported = import_file(path, "x", tmp_path / "data", ImportOptions(sheet="S2"))
    assert [e.messages[-1].text for e in imported.loaded.examples] == ["A1"]  # type: ignore[union-attr]
    assert [row.line for row in read_refused(tmp_path / "data", "x")] == [4], "the row number that the sheet shows"
    (tmp_path / "q.csv").write_text("question,answer\nQ,A\n", encoding="utf-8")
    with pytest.raises(DataError, match="no sheets"):
        inspect_file(tmp_path / "q.csv", ImportOptions(sheet="x"))


def test_the_sheets_of_a_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(as_xlsx([["about"], ["x"]], [["问题", "答案"], ["Q1", "A1"]]))
    assert sheet_names(path) == ("S1", "S2")
    packed = tmp_path / "book.xlsx.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert sheet_names(packed) == ("S1", "S2")
    (tmp_path / "q.csv").write_text("question,answer\nQ,A\n", encoding="utf-8")
    assert sheet_names(tmp_path / "q.csv") == ()
    path.write_bytes(b"no spreadsheet")
    with pytest.raises(DataError, match="Could not read"):
        sheet_names(path)
