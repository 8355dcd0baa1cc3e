"""A CSV file with a header line: the delimiter is detected, every cell is text, quotes and line breaks are kept."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sartor.base.errors import DataError
from sartor.base.file_budget import BoundedLines
from sartor.base.i18n import Text, tr
from sartor.base.open_file import OpenFile
from sartor.base.types import RawRow
from sartor.data.encoding import open_text
from sartor.data.sources import Source

DELIMITERS = (",", "\t", ";", "|", "^", "\x01", "\x1f")
SAMPLE = 1 << 16
"""Characters that the delimiter is detected in."""
MAX_COLUMNS = 16_384
"""As in Excel; a header of commas would become a name for every comma."""
csv.field_size_limit(1 << 30)


@dataclass(frozen=True, slots=True)
class CsvSource(Source):
    """Cells between delimiters; a row with more or fewer cells than the header has a fault."""

    name: ClassVar[str] = "csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    delimiter: str | None = None
    """None: detected in each file."""

    def rows(self, file: OpenFile, where: str, encoding: str) -> Iterator[RawRow]:
        """`line` is where the record begins. Raises: DataError without a header, or for broken quotes."""
        with open_text(file, encoding) as stream:
            delimiter = self.detect_delimiter(file, encoding)
            lines = BoundedLines(stream, where)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            names: list[str] = []
            begin, number = 1, 0
            try:
                for cells in reader:
                    lines.begin_row()
                    line, begin = begin, reader.line_num + 1
                    if not names:
                        names = column_names(cells, where)
                    elif cells:
                        number += 1
                        yield row_of_cells(number, line, cells, names)
            except csv.Error as error:
                raise DataError(
                    "Invalid CSV: {error}.",
                    tr("{file}, line {line}", file=where, line=reader.line_num),
                    "Fix the quotes.",
                    error=str(error),
                ) from None
            if not names:
                column_names([], where)

    def header(self, file: OpenFile, where: str, encoding: str) -> list[str]:
        """Raises: DataError for an empty file or a duplicate column."""
        with open_text(file, encoding) as stream:
            delimiter = self.detect_delimiter(file, encoding)
            return column_names(next(csv.reader(BoundedLines(stream, where), delimiter=delimiter), []), where)

    def detect_delimiter(self, file: OpenFile, encoding: str) -> str:
        if self.delimiter:
            return self.delimiter
        with open_text(file, encoding) as stream:
            return self.find_delimiter(stream.read(SAMPLE))

    def find_delimiter(self, sample: str) -> str:
        """The delimiter of a file that begins with `sample`."""
        return find_delimiter(sample)

    def with_delimiter(self, delimiter: str, where: str) -> CsvSource:
        if len(delimiter) != 1 or delimiter in '"\r\n\0':
            raise DataError(
                "Invalid delimiter {delimiter!r}.",
                where,
                "Use one character, for example , ; | or a tab.",
                delimiter=delimiter,
            )
        return replace(self, delimiter=delimiter)


def row_of_cells(number: int, line: int, cells: list[str], names: list[str]) -> RawRow:
    """Cells under their column names; a fault when there are more or fewer of them."""
    if len(cells) != len(names):
        fault = tr("{cells} cells, but the header has {columns}", cells=len(cells), columns=len(names))
        return RawRow(number, line, None, fault=fault, text=_as_csv(cells))
    return RawRow(number, line, dict(zip(names, cells, strict=True)))


def _as_csv(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def column_names(cells: list[str], where: str | Text) -> list[str]:
    """The names in a header, stripped; a column without one (an exported index) is called `column N`.

    Raises: DataError for an empty header or a duplicate name.
    """
    if not cells:
        raise DataError("The file is empty.", where, "It needs a header line and rows.")
    if len(cells) > MAX_COLUMNS:
        raise DataError(
            "The header has {count:,} columns.",
            where,
            "Keep the columns that are needed, at most {limit:,}.",
            count=len(cells),
            limit=MAX_COLUMNS,
        )
    names = [name.strip() or f"column {number}" for number, name in enumerate(cells, 1)]
    duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
    if duplicates:
        raise DataError(
            "Duplicate column {column!r} in the header.",
            where,
            "Give every column a different name.",
            column=duplicates[0],
        )
    return names


def find_delimiter(sample: str) -> str:
    """The delimiter that splits the first records most evenly into more than one cell; a comma when none does."""
    best, best_width = ",", 1
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
        if even and widths[0] > best_width:
            best, best_width = delimiter, widths[0]
    return best


PLUGIN = CsvSource()
EXAMPLES = (
    (
        ',问题,答案\r\n0,"a, ""b""",007\r\n1,"x\ny",NA\r\n',
        [{"column 1": "0", "问题": 'a, "b"', "答案": "007"}, {"column 1": "1", "问题": "x\ny", "答案": "NA"}],
    ),
    ("q;a\n1;2\n3;4\n", [{"q": "1", "a": "2"}, {"q": "3", "a": "4"}]),
)
"""(text, rows)."""
