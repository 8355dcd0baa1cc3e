"""Data files from strangers: paths that change while they are opened, pipes, bombs, and every reader under mutation."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from sartor.base.errors import DataError, SartorError
from sartor.base.open_file import open_regular
from sartor.data.dataset_info import parse_entry
from sartor.data.load import Loaded, load_spec
from sartor.qa_generation.documents import read_document
from sartor.web.reader import Reader
from sartor.web.reading_process import Readings
from sartor.web.shown import ReadingChoices
from sartor.web.workspace import Workspace
from support import bombs

INSIDE, OUTSIDE = "inside", "outside"
posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes")


def read(path: Path, **keys: Any) -> Loaded:
    return load_spec(parse_entry("x", {"file_name": path.name, **keys}, path.parent / "dataset_info.json"))


def row_file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"instruction": "q", "output": text}) + "\n", encoding="utf-8")


SWAP = """
import os, sys
link, *targets = sys.argv[1:]
while True:
    for target in targets:
        os.symlink(target, link + ".new")
        os.replace(link + ".new", link)
"""


@contextmanager
def swapping(link: Path, *targets: Path) -> Iterator[None]:
    """A process that points a link to one target after the other, as fast as it can."""
    link.symlink_to(targets[0])
    process = subprocess.Popen([sys.executable, "-c", SWAP, str(link), *map(str, targets)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@posix
@pytest.mark.parametrize("part", ["file", "folder"])
def test_a_link_that_is_swapped_while_it_is_opened_never_leads_outside(
    part: str, tmp_path: Path, trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    row_file(data / "real" / "x.jsonl", INSIDE)
    row_file(away / "x.jsonl", OUTSIDE)
    name = "link.jsonl" if part == "file" else "link"
    targets = (data / "real" / "x.jsonl", away / "x.jsonl") if part == "file" else (data / "real", away)
    spec = parse_entry(
        "x", {"file_name": name if part == "file" else "link/x.jsonl", "encoding": "utf-8"}, data / "dataset_info.json"
    )
    seen: dict[str, int] = {}
    with swapping(data / name, *targets):
        for _ in range(trials * 100):
            try:
                said = load_spec(spec).examples[0].messages[1].text  # type: ignore[union-attr]
            except DataError:
                said = "refused"
            seen[said] = seen.get(said, 0) + 1
    assert not seen.get(OUTSIDE), seen
    assert seen.get("refused"), seen  # the race was run


@posix
def test_a_link_swapped_between_check_and_open_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one moment that a race must hit, without a race: the path is resolved, then becomes a link."""
    row_file(tmp_path / "data" / "x.jsonl", INSIDE)
    row_file(tmp_path / "away.jsonl", OUTSIDE)
    path, resolve = tmp_path / "data" / "x.jsonl", Path.resolve

    def resolve_then_swap(self: Path, strict: bool = False) -> Path:
        found = resolve(self, strict)
        if self == path:
            path.unlink()
            path.symlink_to(tmp_path / "away.jsonl")
        return found

    monkeypatch.setattr(Path, "resolve", resolve_then_swap)
    with (
        pytest.raises(DataError, match=r"changed while it was being opened|Could not open"),
        open_regular(path, tmp_path / "data"),
    ):
        pass


def test_what_is_open_stays_what_it_was(tmp_path: Path) -> None:
    row_file(tmp_path / "x.jsonl", INSIDE)
    row_file(tmp_path / "y.jsonl", OUTSIDE)
    with open_regular(tmp_path / "x.jsonl", tmp_path) as file:
        os.replace(tmp_path / "y.jsonl", tmp_path / "x.jsonl")
        with file.open("r", encoding="utf-8") as first, file.open("rb") as second:
            assert INSIDE in first.read()
            assert INSIDE.encode() in second.read()


@posix
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.parquet", "x.xlsx", "dataset_info.json"])
def test_a_pipe_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    from sartor.data.dataset_info import read_registry

    with pytest.raises(DataError, match="Not a regular file"):
        read_registry(tmp_path) if name == "dataset_info.json" else read(tmp_path / name)


@posix
def test_a_device_is_refused(tmp_path: Path) -> None:
    for device in ("/dev/zero", "/dev/stdin"):
        with pytest.raises(DataError, match=r"Not a regular file|Could not open"), open_regular(Path(device)):
            pass
    (tmp_path / "x.md").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="Not a regular file"):
        read_document(tmp_path / "x.md")


ASK = """
import json, resource, sys
from pathlib import Path
from sartor.base.errors import SartorError
path = Path(sys.argv[1])
try:
    if sys.argv[2] == "table":
        from sartor.data.dataset_info import parse_entry
        from sartor.data.load import load_spec
        load_spec(parse_entry("x", {"file_name": path.name}, path.parent / "dataset_info.json"))
    else:
        from sartor.qa_generation.documents import read_document
        read_document(path)
    code = "read"
except SartorError as error:
    code = error.code
status = Path("/proc/self/status").read_text()
own = int(status.split("VmHWM:")[1].split()[0])
print(json.dumps([code, own >> 10, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10]))
"""


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="measures with /proc")
@pytest.mark.parametrize("name", [*bombs.TABLES, *bombs.DOCUMENTS])
def test_a_small_file_does_not_take_gigabytes(name: str, tmp_path: Path) -> None:
    path, kind = tmp_path / name, "table" if name in bombs.TABLES else "document"
    path.write_bytes({**bombs.TABLES, **bombs.DOCUMENTS}[name]())
    done = subprocess.run([sys.executable, "-c", ASK, str(path), kind], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code, own_mib, child_mib = json.loads(done.stdout)
    assert code in ("file-budget", "data"), code
    assert own_mib < 600, own_mib
    assert child_mib < 1000, child_mib


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="measures with /proc")
def test_the_page_survives_every_bomb(tmp_path: Path) -> None:
    """Previews as the page makes them: each is an error or a preview, and the page's own process stays small."""
    reader = Reader(Workspace(tmp_path))
    before = psutil.Process().memory_info().rss
    try:
        for name in ("far-cells.xlsx", "repeated-row.ods", "many-rows.parquet", "columns.csv.gz", "one-line.jsonl.gz"):
            (tmp_path / name).write_bytes(bombs.TABLES[name]())
            with pytest.raises(SartorError) as refused:
                reader.call("inspect", file=name, reading=ReadingChoices())
            assert refused.value.code == "file-budget"
    finally:
        reader.close()
    assert psutil.Process().memory_info().rss - before < 600 << 20  # what it took to make the files


@posix
@pytest.mark.parametrize("file", ["link.csv", "links/x.csv"])
def test_the_page_reads_no_file_that_a_link_leads_to_outside(file: str, tmp_path: Path, trials: int) -> None:
    (tmp_path / "work" / "real").mkdir(parents=True)
    (tmp_path / "away").mkdir()
    for folder, text in ((tmp_path / "work" / "real", INSIDE), (tmp_path / "away", OUTSIDE)):
        (folder / "x.csv").write_text(f"question,answer\nq,{text}\n", encoding="utf-8")
    link = tmp_path / "work" / file.partition("/")[0]
    end = "x.csv" if link.suffix else ""
    readings, seen = Readings(Workspace(tmp_path / "work")), set()
    with swapping(link, tmp_path / "work" / "real" / end, tmp_path / "away" / end):
        for _ in range(trials * 50):
            try:
                sample = readings.inspect(file, ReadingChoices("utf-8")).sample
                seen.add(sample[0]["answer"])
            except SartorError:
                seen.add("refused")
    assert OUTSIDE not in seen
    assert "refused" in seen


def test_an_honest_file_larger_than_the_free_budget_is_read(tmp_path: Path) -> None:
    """A row for each 40 bytes of the file, and more rows than are free."""
    with (tmp_path / "x.jsonl").open("w", encoding="utf-8") as file:
        for number in range(250_000):
            file.write(f'{{"instruction": "{number}", "output": "a"}}\n')
    assert read(tmp_path / "x.jsonl", split="train[:10]").ledger.read == 250_000


def test_the_budget_can_be_raised_by_the_person_at_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"instruction": "q", "output": "a"}\n' * 250_000))
    with pytest.raises(DataError, match=r"more than 2.* rows") as refused:
        read(tmp_path / "x.jsonl.gz")
    assert "SARTOR_FILE_BUDGET=10" in str(refused.value.fix)
    monkeypatch.setenv("SARTOR_FILE_BUDGET", "10")
    assert read(tmp_path / "x.jsonl.gz", split="train[:10]").ledger.read == 250_000
    monkeypatch.setenv("SARTOR_FILE_BUDGET", "lots")
    with pytest.raises(SartorError, match="not a positive number"):
        read(tmp_path / "x.jsonl.gz")


def test_num_samples_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    row_file(tmp_path / "x.jsonl", "a")
    assert len(read(tmp_path / "x.jsonl", num_samples=100).examples) == 100
    with pytest.raises(DataError, match="num_samples is 1,000,000,000"):
        read(tmp_path / "x.jsonl", num_samples=10**9)


def test_a_module_in_the_working_directory_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").write_bytes(parquet())
    for name in ("json", "pyarrow", "sartor"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert read(tmp_path / "x.parquet").ledger.read == 3
    assert not (tmp_path / "ran").exists()


ROWS = [
    {"instruction": "Who?", "input": "", "output": "Elizabeth"},
    {"instruction": "谁？", "input": "x", "output": "伊丽莎白"},
    {"instruction": 'a "quoted" word', "input": None, "output": "two\nlines"},
]


def jsonl() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def delimited(sign: str) -> bytes:
    lines = [ROWS[0].keys(), *(["".join(str(v or "").split("\n")).replace('"', "") for v in r.values()] for r in ROWS)]
    return "\r\n".join(sign.join(line) for line in lines).encode()


def table() -> pa.Table:
    return pa.Table.from_pylist(ROWS)


def parquet() -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(table(), file)
    return file.getvalue()


def arrow(new: Callable[..., Any]) -> bytes:
    file = io.BytesIO()
    with new(file, table().schema) as writer:
        writer.write_table(table())
    return file.getvalue()


def spreadsheet() -> bytes:
    head = "".join(bombs.cell(f"{c}1", n) for c, n in zip("ABC", ROWS[0], strict=True))
    rows = "".join(
        f'<row r="{n}">'
        + "".join(bombs.cell(f"{c}{n}", str(v)) for c, v in zip("ABC", r.values(), strict=True))
        + "</row>"
        for n, r in enumerate(ROWS, 2)
    )
    return bombs.spreadsheet(f'<row r="1">{head}</row>{rows}')


def ods() -> bytes:
    return bombs.repeated_row(3)


def packed_zip(content: bytes) -> bytes:
    return bombs.zipped({"x.jsonl": content})


TEXT: Mapping[str, Callable[[], bytes]] = {
    "x.json": lambda: json.dumps(ROWS, ensure_ascii=False).encode(),
    "x.jsonl": jsonl,
    "x.csv": lambda: delimited(","),
    "x.tsv": lambda: delimited("\t"),
    "x.txt": lambda: "One\nline.\n\n两行。\n".encode() * 5,
    "gbk.csv": lambda: delimited(";").decode().encode("gb18030"),
    "utf16.jsonl": lambda: jsonl().decode().encode("utf-16"),
    "x.jsonl.gz": lambda: gzip.compress(jsonl()),
    "x.jsonl.bz2": lambda: bz2.compress(jsonl()),
    "x.jsonl.xz": lambda: lzma.compress(jsonl()),
    "x.jsonl.zst": lambda: zstandard.compress(jsonl()),
    "x.jsonl.zip": lambda: packed_zip(jsonl()),
}
LIMITED: Mapping[str, Callable[[], bytes]] = {
    "x.xlsx": spreadsheet,
    "x.ods": ods,
    "x.parquet": parquet,
    "x.arrow": lambda: arrow(pa.ipc.new_stream),
    "x.feather": lambda: arrow(pa.ipc.new_file),
    "x.parquet.gz": lambda: gzip.compress(parquet()),
}


def pdf() -> bytes:
    text = b"BT /F1 12 Tf 10 10 Td (Chapter 1) Tj ET"
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(text), text),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body = b"%PDF-1.4\n" + b"".join(b"%d 0 obj%s endobj\n" % (n, part) for n, part in enumerate(parts, 1))
    return body + b"trailer<</Root 1 0 R/Size 6>>\n%%EOF"


def epub() -> bytes:
    return bombs.epub("<h1>Chapter 1</h1><p>It is a truth.</p>", 2)


DOCUMENTS: Mapping[str, Callable[[], bytes]] = {
    "x.html": lambda: b"<html><head><title>t</title></head><body><h1>One</h1><p>Two <b>three</b></p></body></html>",
    "x.md": lambda: "# One\n\nTwo. 三。\n".encode(),
    "x.pdf": pdf,
    "x.docx": lambda: bombs.document("<w:p><w:r><w:t>One</w:t></w:r></w:p>" * 3),
    "x.epub": epub,
}
BYTES = (0, 1, 10, 34, 44, 48, 57, 91, 93, 123, 125, 127, 128, 255)
"""Bytes that mean something to some reader: line ends, quotes, brackets, digits, and both ends of a number."""


def mutated(content: bytes, choose: random.Random) -> bytes:
    """The file with a few bytes changed, cut out, repeated or moved; sometimes cut short."""
    made = bytearray(content)
    for _ in range(choose.choice((1, 1, 2, 4, 16))):
        at, length = choose.randrange(len(made) + 1), choose.choice((1, 1, 2, 4, 8, 64))
        match choose.randrange(6):
            case 0 | 1:
                made[at : at + 1] = bytes([choose.choice(BYTES)])
            case 2:
                made[at : at + length] = bytes([choose.choice((0, 255, 127))]) * length
            case 3:
                del made[at : at + length]
            case 4:
                made[at:at] = made[max(0, at - length) : at] * choose.choice((1, 2, 50))
            case 5:
                made = made[:at] if choose.random() < 0.2 else made
    return bytes(made)


def check_table(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    stage = "pt" if path.suffix == ".txt" else "sft"
    spec = parse_entry("x", {"file_name": path.name}, path.parent / "dataset_info.json")
    try:
        ledger = load_spec(spec, stage=stage).ledger
    except SartorError:
        return
    assert ledger.read == ledger.training + ledger.held_out + ledger.left_out + len(ledger.skipped)


@pytest.mark.parametrize("name", TEXT)
def test_any_mutation_of_a_text_file_is_rows_or_a_reason(name: str, tmp_path: Path, trials: int) -> None:
    choose = random.Random(f"text {name}")
    check_table(tmp_path / name, TEXT[name]())
    for _ in range(trials * 20):
        check_table(tmp_path / name, mutated(TEXT[name](), choose))


def test_a_zip_whose_member_has_no_name_is_damaged(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = ""
    with zipfile.ZipFile(tmp_path / "x.jsonl.zip", "w") as archive, archive.open(info, "w") as member:
        member.write(jsonl())
    with pytest.raises(DataError, match="Could not decompress"):
        read(tmp_path / "x.jsonl.zip")


@pytest.mark.real
@pytest.mark.parametrize("name", LIMITED)
def test_any_mutation_of_a_table_is_rows_or_a_reason(name: str, tmp_path: Path, trials: int) -> None:
    choose = random.Random(f"table {name}")
    for _ in range(trials):
        check_table(tmp_path / name, mutated(LIMITED[name](), choose))


@pytest.mark.real
@pytest.mark.parametrize("name", DOCUMENTS)
def test_any_mutation_of_a_document_is_text_or_a_reason(name: str, tmp_path: Path, trials: int) -> None:
    choose = random.Random(f"document {name}")
    for _ in range(trials):
        (tmp_path / name).write_bytes(mutated(DOCUMENTS[name](), choose))
        try:
            assert read_document(tmp_path / name).sections
        except SartorError:
            continue


@pytest.mark.parametrize("name", [*LIMITED, *DOCUMENTS])
def test_the_seeds_of_the_mutations_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes({**LIMITED, **DOCUMENTS}[name]())
    if name in LIMITED:
        assert read(path, columns={"prompt": "q", "response": "a"} if name == "x.ods" else {}).ledger.training == 3
    else:
        assert "One" in (text := read_document(path).sections[0].text) or "Chapter 1" in text
