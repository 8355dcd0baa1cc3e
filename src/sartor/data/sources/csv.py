"""A CSV file with a header line: the delimiter is found, every cell is text, quotes and line breaks are kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from sartor.base.errors import DataError
from sartor.data.raw import Raw

SUFFIXES = (".csv", ".tsv")
DELIMITERS = (",", "\t", ";", "|")
csv.field_size_limit(1 << 30)


def rows(text: str, where: str) -> Iterator[Raw]:
    """Each record under its header; `line` is where the record begins.

    A record with more cells than the header, or fewer, is a fault of that row. Raises: DataError without a header.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True)
    names = header(text, where)
    begin = 1
    try:
        for number, cells in enumerate(reader):
            line, begin = begin, reader.line_num + 1
            if number == 0 or not cells:
                continue
            if len(cells) != len(names):
                yield Raw(number, line, None, fault=f"{len(cells)} cells, the header has {len(names)}")
            else:
                yield Raw(number, line, dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"The CSV is broken: {error}.", f"{where}, line {reader.line_num}", "Mend the quotes."
        ) from None


def header(text: str, where: str) -> list[str]:
    """The column names; an unnamed one (an index that was exported) is called `column N`. Names are stripped.

    Raises: DataError for an empty file or a name that stands twice.
    """
    first = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text)), None)
    if not first:
        raise DataError("The file is empty.", where, "It needs a header line and rows.")
    names = [name.strip() or f"column {number}" for number, name in enumerate(first, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"The header names {twice[0]!r} twice.", where, "Give every column its own name.")
    return names


def delimiter_of(text: str) -> str:
    """The delimiter that splits the first records most evenly into more than one cell; a comma when none does."""
    sample = text[:65536]
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
    (',问题,答案\r\n0,"a, ""b""",007\r\n1,"x\ny",NA\r\n',
     [{"column 1": "0", "问题": 'a, "b"', "答案": "007"}, {"column 1": "1", "问题": "x\ny", "答案": "NA"}]),
    ("q;a\n1;2\n3;4\n", [{"q": "1", "a": "2"}, {"q": "3", "a": "4"}]),
)  # fmt: skip
"""(text, rows)"""
