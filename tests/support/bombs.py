"""Small files that ask for gigabytes, one for each kind of reader."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.parquet
import zstandard

TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName='
    '"/xl/worksheets/sheet1.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>'
)
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
SHEETS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def spreadsheet(rows: str) -> bytes:
    """An xlsx with one sheet whose rows are this XML."""
    book = (
        f'<workbook xmlns="{SHEETS}" xmlns:r="{RELATIONS}"><sheets><sheet name="a" sheetId="1" r:id="rId1"/></sheets>'
        "</workbook>"
    )
    return zipped(
        {
            "[Content_Types].xml": TYPES,
            "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="rId1" '
            f'Type="{RELATIONS}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": book,
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="rId1" '
            f'Type="{RELATIONS}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{SHEETS}"><sheetData>{rows}</sheetData></worksheet>',
        }
    )


def cell(place: str, text: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


def far_cells() -> bytes:
    """Cells in the first and the last corner of a sheet: 17 billion cells in a library that keeps rectangles."""
    return spreadsheet(f'<row r="1">{cell("A1", "q")}</row><row r="1048576">{cell("XFD1048576", "a")}</row>')


def wide_cells() -> bytes:
    """A rectangle of 80 million cells, which fits into memory here and there."""
    return spreadsheet(f'<row r="1">{cell("A1", "q")}{cell("B1", "a")}</row><row r="5000">{cell("XFD5000", "a")}</row>')


def repeated_row(times: int = 1_000_000_000) -> bytes:
    """An .ods that says that one row is repeated so many times."""
    names = "urn:oasis:names:tc:opendocument:xmlns"
    content = (
        f'<office:document-content xmlns:office="{names}:office:1.0" xmlns:table="{names}:table:1.0" '
        f'xmlns:text="{names}:text:1.0"><office:body><office:spreadsheet><table:table table:name="a">'
        '<table:table-row><table:table-cell office:value-type="string"><text:p>q</text:p></table:table-cell>'
        '<table:table-cell office:value-type="string"><text:p>a</text:p></table:table-cell></table:table-row>'
        f'<table:table-row table:number-rows-repeated="{times}"><table:table-cell office:value-type="string" '
        'table:number-columns-repeated="2"><text:p>x</text:p></table:table-cell></table:table-row>'
        "</table:table></office:spreadsheet></office:body></office:document-content>"
    )
    manifest = (
        f'<manifest:manifest xmlns:manifest="{names}:manifest:1.0"><manifest:file-entry manifest:full-path="/" '
        'manifest:media-type="application/vnd.oasis.opendocument.spreadsheet"/></manifest:manifest>'
    )
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "content.xml": content,
            "META-INF/manifest.xml": manifest,
        }
    )


def many_rows() -> bytes:
    """A Parquet of a hundred million rows without a value."""
    file = io.BytesIO()
    table = pa.table({"instruction": pa.nulls(100_000_000, pa.string())})
    pa.parquet.write_table(table, file, compression="zstd", row_group_size=100_000_000)
    return file.getvalue()


def long_text() -> bytes:
    """A Parquet with one text of 300 MiB."""
    file = io.BytesIO()
    table = pa.table({"instruction": ["x" * (300 << 20)], "output": ["a"]})
    pa.parquet.write_table(table, file, compression="zstd", use_dictionary=False)
    return file.getvalue()


def packed_arrow() -> bytes:
    """An Arrow file whose compressed buffers hold gigabytes of nulls."""
    file = io.BytesIO()
    batch = pa.record_batch({name: pa.nulls(30_000_000, pa.int64()) for name in ("instruction", "output")})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(file, batch.schema, options=options) as writer:
        for _ in range(4):
            writer.write_batch(batch)
    return file.getvalue()


def document(body: str) -> bytes:
    """A Word document with this XML as its body."""
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    types = TYPES.replace("/xl/workbook.xml", "/word/document.xml").replace(
        "spreadsheetml.sheet.main", "wordprocessingml.document.main"
    )
    return zipped(
        {
            "[Content_Types].xml": types,
            "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="rId1" '
            f'Type="{RELATIONS}/officeDocument" Target="word/document.xml"/></Relationships>',
            "word/document.xml": f'<w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>',
        }
    )


def epub(html: str, times: int) -> bytes:
    """A book whose spine names one file many times."""
    return zipped(
        {
            "META-INF/container.xml": '<container><rootfiles><rootfile full-path="b.opf"/></rootfiles></container>',
            "b.opf": '<package><manifest><item id="a" href="a.html"/></manifest><spine>'
            + '<itemref idref="a"/>' * times
            + "</spine></package>",
            "a.html": html,
        }
    )


TABLES: Mapping[str, Callable[[], bytes]] = {
    "far-cells.xlsx": far_cells,
    "wide-cells.xlsx": wide_cells,
    "repeated-row.ods": repeated_row,
    "many-rows.parquet": many_rows,
    "long-text.parquet": long_text,
    "packed.arrow": packed_arrow,
    "tiny-rows.jsonl.gz": lambda: gzip.compress(b"{}\n" * 7_000_000, 9),
    "tiny-rows.json.zst": lambda: zstandard.compress(b"[" + b"{}," * 7_000_000 + b"{}]"),
    "tiny-values.json.zst": lambda: zstandard.compress(b'[{"a":[' + b"[]," * 60_000_000 + b"[]]}]"),
    "one-line.jsonl.gz": lambda: gzip.compress(b'{"a":[' + b"[]," * 60_000_000 + b"[]]}\n", 1),
    "columns.csv.gz": lambda: gzip.compress(b"," * 100_000_000 + b"\nx\n", 1),
    "names.csv.gz": lambda: gzip.compress(b"a," * 5_000_000 + b"\nx\n", 9),
    "one-cell.csv.zst": lambda: zstandard.compress(b'q,a\n"' + b"x\n" * (100 << 20) + b'",b\n'),
    "cells.csv.zst": lambda: zstandard.compress(b"q,a\n" + b'"\n",' * (50 << 20) + b"b\n"),
    "one-line.txt.zst": lambda: zstandard.compress(b"x" * (300 << 20)),
    "zeros.jsonl.zst": lambda: zstandard.compress(bytes(600_000_000)),
}
"""File name → the bytes of a file that is far smaller than what it asks for."""
DOCUMENTS: Mapping[str, Callable[[], bytes]] = {
    "paragraphs.docx": lambda: document("<w:p/>" * 25_000_000),
    "repeated.epub": lambda: epub("<p>" + "x" * 1_000_000 + "</p>", 100_000),
    "deep.html": lambda: b"<div>" * 20_000_000,
}
