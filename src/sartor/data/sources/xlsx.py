"""A spreadsheet with a header line: every cell is its text, dates are ISO; empty and hidden sheets are passed over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError
from sartor.base.types import RawRow
from sartor.data.decompress import measure_zip

SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
TEXT = False


def rows(path: Path, where: str, encoding: str | None = None) -> Iterator[RawRow]:
    """Each row that is not blank, under the header of its sheet; `line` is the sheet's row.

    Sheets with the same header are read one after the other. Raises: DataError for a damaged file, a header that
    names a column twice, or sheets with different headers.
    """
    names: list[str] = []
    first = ""
    number = 0
    for sheet, cells in _sheets(path, where):
        header: list[str] = []
        for line, row in cells:
            texts = [text_of(cell) for cell in row]
            if not any(texts):
                continue
            if not header:
                header = _header(texts, f"{where}, sheet {sheet!r}")
                if names and header != names:
                    raise DataError(
                        f"Sheet {sheet!r} has other columns than {first!r}.", where, "Save each as a file of its own."
                    )
                names, first = header, first or sheet
                continue
            number += 1
            extra = texts[len(names) :]
            if any(extra):
                yield RawRow(number, line, None, fault=f"{len(texts)} cells, the header has {len(names)}")
            else:
                yield RawRow(number, line, dict(zip(names, texts + [""] * len(names))))
    if not names:
        raise DataError("The file is empty.", where, "It needs a header line and rows.")


def _sheets(path: Path, where: str) -> Iterator[tuple[str, Iterator[tuple[int, list[Any]]]]]:
    try:
        import python_calamine
    except ImportError:
        raise DataError("Spreadsheets need python-calamine.", where, "pip install 'sartor[docs]'") from None
    measure_zip(path, where)
    try:
        with python_calamine.CalamineWorkbook.from_path(str(path)) as book:
            for about in book.sheets_metadata:
                if about.typ == python_calamine.SheetTypeEnum.WorkSheet and (
                    about.visible == python_calamine.SheetVisibleEnum.Visible
                ):
                    sheet = book.get_sheet_by_name(about.name)
                    start = sheet.start[0] if sheet.start else 0
                    yield about.name, enumerate(sheet.to_python(skip_empty_area=True), start + 1)
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        raise DataError(f"The spreadsheet cannot be read: {error}.", where, "Save it anew as .xlsx.") from None


def _header(texts: list[str], where: str) -> list[str]:
    while texts and not texts[-1]:
        texts = texts[:-1]
    names = [name.strip() or f"column {number}" for number, name in enumerate(texts, 1)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"The header names {twice[0]!r} twice.", where, "Give every column its own name.")
    return names


def text_of(cell: Any) -> str:
    """A cell's text: 7.0 is `7` as the sheet shows it, dates and times are ISO, truth is `true` or `false`."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, (datetime, date, time)):
        return cell.isoformat()
    return str(cell)
