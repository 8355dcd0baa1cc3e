"""A CSV file with a header line: the delimiter is found, every cell is text, quotes and line breaks are kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from sartor.base.errors import DataError
from sartor.base.types import RawRow
from sartor.data.encoding import open_text

SUFFIXES = (".csv",)
TEXT = True
DELIMITERS = (",", "\t", ";", "|", "^", "\x01", "\x1f")
csv.field_size_limit(1 << 30)


def rows(path: Path, where: str, encoding: str) -> Iterator[RawRow]:
    """Each record under its header; `line` is where the record begins.

    A record with more cells than the header, or fewer, is a fault of that row. Raises: DataError without a header.
    """
    yield from records(path, where, encoding, delimiter(path, encoding))


def delimiter(path: Path, encoding: str) -> str:
    """The delimiter that this file is read with."""
    with open_text(path, encoding) as file:
        return delimiter_of(file.read(65536))


def records(path: Path, where: str, encoding: str, between: str) -> Iterator[RawRow]:
    """`rows` with the delimiter known."""
    with open_text(path, encoding) as file:
        reader = csv.reader(file, delimiter=between, strict=True)
        names: list[str] = []
        begin, number = 1, 0
        try:
            for cells in reader:
                line, begin = begin, reader.line_num + 1
                if not names:
                    names = _names(cells, where)
                elif cells:
                    number += 1
                    yield _raw(number, line, cells, names)
        except csv.Error as error:
            raise DataError(
                f"The CSV is broken: {error}.", f"{where}, line {reader.line_num}", "Mend the quotes."
            ) from None
        if not names:
            _names([], where)


def _raw(number: int, line: int, cells: list[str], names: list[str]) -> RawRow:
    if len(cells) != len(names):
        return RawRow(number, line, None, fault=f"{len(cells)} cells, the header has {len(names)}")
    return RawRow(number, line, dict(zip(names, cells, strict=True)))


def header(path: Path, where: str, encoding: str, between: str | None = None) -> list[str]:
    """The column names; an unnamed one (an index that was exported) is called `column N`. Names are stripped.

    Raises: DataError for an empty file or a name that stands twice.
    """
    with open_text(path, encoding) as file:
        return _names(next(csv.reader(file, delimiter=between or delimiter(path, encoding)), []), where)


def _names(cells: list[str], where: str) -> list[str]:
    if not cells:
        raise DataError("The file is empty.", where, "It needs a header line and rows.")
    names = [name.strip() or f"column {number}" for number, name in enumerate(cells, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"The header names {twice[0]!r} twice.", where, "Give every column its own name.")
    return names


def delimiter_of(sample: str) -> str:
    """The delimiter that splits the first records most evenly into more than one cell; a comma when none does."""
    best, most = ",", 1
    for delimiter in DELIMITERS:
        widths = []
        try:
            for cells in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
                if cells:
                    widths.append(len(cells))
                if len(widths) == 20:
                    break
        except csv.Error:
            continue
        even = widths and widths.count(widths[0]) >= 0.9 * len(widths)
        if even and widths[0] > most:
            best, most = delimiter, widths[0]
    return best


EXAMPLES = (
    (
        ',问题,答案\r\n0,"a, ""b""",007\r\n1,"x\ny",NA\r\n',
        [{"column 1": "0", "问题": 'a, "b"', "答案": "007"}, {"column 1": "1", "问题": "x\ny", "答案": "NA"}],
    ),
    ("q;a\n1;2\n3;4\n", [{"q": "1", "a": "2"}, {"q": "3", "a": "4"}]),
)
"""(text, rows)"""
