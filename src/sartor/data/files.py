"""One data file, ready to be read: decompressed, its encoding detected, its source chosen by its suffix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from sartor.base.errors import DataError
from sartor.base.file_budget import FileBudget, over_budget
from sartor.base.i18n import Text, tr
from sartor.base.limited_process import read_limited
from sartor.base.open_file import OpenFile, open_regular
from sartor.base.types import RawRow
from sartor.data import decompress
from sartor.data import encoding as encodings
from sartor.data.sources import SOURCES, Source, suffixes


@dataclass(frozen=True, slots=True)
class DataFile:
    """An open file: its source, its text encoding (None where it is not text) and how that was found."""

    file: OpenFile
    """The decompressed file."""
    where: str
    """The original file, for messages."""
    source: Source
    encoding: str | None
    how: Text
    budget: FileBudget
    sheet: str | None = None

    def rows(self) -> Iterator[RawRow]:
        """The rows, one at a time. Raises: DataError as the source does, or for a file that exceeds its budget."""
        source, cells = self.source, 0
        limited = source.reads_foreign_layout
        for raw in self._limited() if limited else source.rows(self.file, self.where, self.encoding or ""):
            cells += len(raw.value) if isinstance(raw.value, dict) else 1
            if raw.row > self.budget.rows:
                limit = tr(
                    "The file has more than {limit:,} rows, far more than files of its size have.",
                    limit=self.budget.rows,
                )
                raise over_budget(limit, self.where)
            if cells > self.budget.cells:
                limit = tr(
                    "The file has more than {limit:,} cells, far more than files of its size have.",
                    limit=self.budget.cells,
                )
                raise over_budget(limit, self.where)
            yield raw

    def _limited(self) -> Iterator[RawRow]:
        """The rows, read in a process with limits."""
        arguments = {"source": self.source.name, "where": self.where, "sheet": self.sheet}
        reader = f"{__name__}:rows_as_json"
        for row, line, value, fault, text in read_limited(reader, self.file, arguments, self.budget, self.where):
            yield RawRow(row, line, value, Text.from_json(fault) if fault else None, text)

    def header(self) -> list[str]:
        """The column names of a file with a header line; empty for others."""
        return self.source.header(self.file, self.where, self.encoding or "")

    def detect_delimiter(self) -> str | None:
        """The character between cells; None for a file without cells."""
        return self.source.detect_delimiter(self.file, self.encoding or "")


@contextmanager
def open_data_file(
    path: Path,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    *,
    opened: OpenFile | None = None,
    inside: Path | None = None,
) -> Iterator[DataFile]:
    """A data file; what had to be decompressed is removed afterwards.

    `encoding` and `delimiter` (one character) override what would be detected, `sheet` chooses one of a spreadsheet;
    `opened` is the file where the caller has opened (and checked) it already, `inside` a folder that it must be in.
    Raises: DataError for a suffix that no source reads, a damaged archive, or an encoding that does not decode the file
    or cannot be determined.
    """
    where = str(path)
    if path.suffix.lower() not in (*decompress.COMPRESSED_SUFFIXES, *suffixes()):
        raise _unsupported(path.name, where)
    with ExitStack() as stack:
        file = opened or stack.enter_context(open_regular(path, inside))
        budget = FileBudget.of(file.size)
        plain, name = stack.enter_context(decompress.decompressed(file, path.name, where))
        source = source_for(name, where)
        if delimiter is not None:
            source = source.with_delimiter(delimiter, where)
        if sheet is not None:
            source = source.with_sheet(sheet, where)
        if source.is_text:
            found = encodings.detect_encoding(plain, encoding, where)
            yield DataFile(plain, where, source, found.encoding, found.how, budget)
        else:
            yield DataFile(plain, where, source, None, tr("not a text file"), budget, sheet)


def rows_as_json(file: OpenFile, source: str, where: str, sheet: str | None) -> Iterator[Any]:
    """In the process with limits: the rows of a source as JSON values."""
    found = SOURCES.get(source)
    for raw in (found.with_sheet(sheet, where) if sheet is not None else found).rows(file, where, ""):
        yield [raw.row, raw.line, raw.value, raw.fault.to_json() if raw.fault else None, raw.text]


def sheet_names(path: Path, inside: Path | None = None) -> tuple[str, ...]:
    """The sheets of a spreadsheet; empty for other files. Raises: DataError as `open_data_file` does."""
    with_sheets = {suffix for source in SOURCES.all() if source.has_sheets for suffix in source.suffixes}
    if not with_sheets & {suffix.lower() for suffix in path.suffixes}:
        return ()
    with open_data_file(path, inside=inside) as file:
        arguments = {"source": file.source.name, "where": file.where}
        return tuple(read_limited(f"{__name__}:sheets_as_json", file.file, arguments, file.budget, file.where))


def sheets_as_json(file: OpenFile, source: str, where: str) -> Iterator[str]:
    """In the process with limits: the names of the sheets."""
    yield from SOURCES.get(source).sheets(file, where)


def raw_rows(
    path: Path,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    inside: Path | None = None,
) -> Iterator[RawRow]:
    """The rows of one file, one at a time. Raises: DataError as `open_data_file` does."""
    with open_data_file(path, encoding, delimiter, sheet, inside=inside) as file:
        yield from file.rows()


def source_for(name: str, where: str) -> Source:
    """The source that reads a file of this name. Raises: DataError listing the suffixes that can be read."""
    suffix = PurePath(name).suffix.lower()
    for source in SOURCES.all():
        if suffix in source.suffixes:
            return source
    raise _unsupported(name, where)


def _unsupported(name: str, where: str) -> DataError:
    return DataError(
        "Unsupported file type {suffix!r}.",
        where,
        "Supported: {suffixes}; each also compressed as {compressed}.",
        suffix=PurePath(name).suffix,
        suffixes=", ".join(suffixes()),
        compressed=", ".join(decompress.COMPRESSED_SUFFIXES),
    )
