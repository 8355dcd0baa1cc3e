"""A spreadsheet with a header line: every cell is read as text, dates as ISO; empty and hidden sheets are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Any, ClassVar

from sartor.base.errors import DataError, did_you_mean
from sartor.base.i18n import tr
from sartor.base.open_file import OpenFile
from sartor.base.types import RawRow
from sartor.data.decompress import check_zip
from sartor.data.sources import Source
from sartor.data.sources.csv import column_names, row_of_cells


@dataclass(frozen=True, slots=True)
class SpreadsheetSource(Source):
    """Excel and OpenDocument spreadsheets; sheets with the same header are read one after the other."""

    name: ClassVar[str] = "xlsx"
    suffixes: ClassVar[tuple[str, ...]] = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
    is_text: ClassVar[bool] = False
    reads_foreign_layout: ClassVar[bool] = True
    has_sheets: ClassVar[bool] = True
    sheet: str | None = None
    """None: all that are not hidden."""

    def with_sheet(self, sheet: str, where: str) -> SpreadsheetSource:
        return replace(self, sheet=sheet)

    def sheets(self, file: OpenFile, where: str) -> tuple[str, ...]:
        with _open(file, where) as book:
            return tuple(about.name for about in book.sheets_metadata if _is_shown(about))

    def rows(self, file: OpenFile, where: str, encoding: str) -> Iterator[RawRow]:
        """Each row that is not blank; `line` is the row number in its sheet.

        Raises: DataError for a damaged file, a duplicate column, or sheets with different headers.
        """
        names: list[str] = []
        first = ""
        number = 0
        for sheet, cells in _sheets(file, where, self.sheet):
            header: list[str] = []
            for line, row in cells:
                texts = _without_empty_end([text_of(cell) for cell in row])
                if not texts:
                    continue
                if not header:
                    header = column_names(texts, tr("{file}, sheet {sheet!r}", file=where, sheet=sheet))
                    if names and header != names:
                        raise DataError(
                            "Sheets {sheet!r} and {first!r} have different columns.",
                            where,
                            "Choose one of them; on the command line: --sheet NAME.",
                            sheet=sheet,
                            first=first,
                        )
                    names, first = header, first or sheet
                    continue
                number += 1
                yield row_of_cells(number, line, texts + [""] * (len(names) - len(texts)), names)
        if not names:
            column_names([], where)


def _sheets(file: OpenFile, where: str, wanted: str | None) -> Iterator[tuple[str, Iterator[tuple[int, list[Any]]]]]:
    with _open(file, where) as book:
        names = [about.name for about in book.sheets_metadata]
        if wanted is not None and wanted not in names:
            raise DataError("No sheet {sheet!r}.", where, did_you_mean(wanted, names), sheet=wanted)
        for about in book.sheets_metadata:
            if _is_worksheet(about) and (_is_shown(about) if wanted is None else about.name == wanted):
                sheet = book.get_sheet_by_name(about.name)
                start = sheet.start[0] if sheet.start else 0
                yield about.name, enumerate(sheet.to_python(skip_empty_area=True), start + 1)


@contextmanager
def _open(file: OpenFile, where: str) -> Iterator[Any]:
    """The workbook. Raises: DataError without the package, or for a damaged file."""
    try:
        import python_calamine
    except ImportError:
        raise DataError("Spreadsheets need the package python-calamine.", where, "pip install 'sartor[docs]'") from None
    check_zip(file, where)
    try:
        with file.open("rb") as stream, python_calamine.CalamineWorkbook.from_filelike(stream) as book:
            yield book
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        raise DataError(
            "Could not read the spreadsheet: {error}.", where, "Save it again as .xlsx.", error=str(error)
        ) from None


def _is_worksheet(about: Any) -> bool:
    """Whether a sheet has cells; charts and macros are sheets too."""
    return bool(about.typ == type(about.typ).WorkSheet)


def _is_shown(about: Any) -> bool:
    return _is_worksheet(about) and bool(about.visible == type(about.visible).Visible)


def _without_empty_end(texts: list[str]) -> list[str]:
    while texts and not texts[-1]:
        texts = texts[:-1]
    return texts


def text_of(cell: Any) -> str:
    """A cell's text: 7.0 is `7` as the sheet shows it, dates and times are ISO, booleans `true` or `false`."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, (datetime, date, time)):
        return cell.isoformat()
    return str(cell)


PLUGIN = SpreadsheetSource()
