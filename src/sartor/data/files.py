"""A data file as people have it: unpacked, its encoding found, its rows read by the plug-in of its suffix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import ModuleType

from sartor.base import registry
from sartor.base.errors import DataError
from sartor.base.types import RawRow
from sartor.data import decompress
from sartor.data import encoding as encodings
from sartor.data.sources import csv

NO_TEXT = "no text file"


@dataclass(frozen=True, slots=True)
class DataFile:
    """An open file: the plug-in that reads it, its text encoding (None where it is no text) and how that was found."""

    path: Path
    where: str
    source: ModuleType
    encoding: str | None
    how: str
    delimiter: str | None = None
    """What stands between cells, where a person said it; None: as found."""

    def rows(self) -> Iterator[RawRow]:
        """Its rows, one at a time."""
        rows: Iterator[RawRow]
        if self.delimiter and self.encoding:
            rows = csv.records(self.path, self.where, self.encoding, self.delimiter)
        else:
            rows = self.source.rows(self.path, self.where, self.encoding)
        return rows

    def header(self) -> list[str]:
        """The column names of a file with a header line; nothing for others."""
        if self.delimiter and self.encoding:
            return csv.header(self.path, self.where, self.encoding, self.delimiter)
        found: list[str] = self.source.header(*self._place()) if hasattr(self.source, "header") else []
        return found

    def detect_delimiter(self) -> str | None:
        """What stands between cells, where a file has cells."""
        if self.delimiter:
            return self.delimiter
        found: str | None = (
            self.source.delimiter(self.path, self.encoding) if hasattr(self.source, "delimiter") else None
        )
        return found

    def _place(self) -> tuple[Path, str, str | None]:
        return self.path, self.where, self.encoding


@contextmanager
def open_data_file(path: Path, encoding: str | None = None, delimiter: str | None = None) -> Iterator[DataFile]:
    """A data file, ready to be read; what had to be unpacked is gone afterwards.

    `delimiter` is one character between cells that wins over the one found; files without cells refuse it.
    Raises: DataError for a suffix that no plug-in reads, a damaged packing, or an encoding that is not proved.
    """
    where = str(path)
    if path.suffix.lower() not in (*decompress.COMPRESSED_SUFFIXES, *suffixes()):
        raise _unsupported(path.name, where)
    with decompress.decompressed(path, where) as (plain, name):
        source = source_for(name, where)
        if delimiter is not None:
            _check_delimiter(delimiter, source, where)
        if not source.TEXT:
            yield DataFile(plain, where, source, None, NO_TEXT)
            return
        found = encodings.detect_encoding(plain, encoding, where)
        yield DataFile(plain, where, source, found.encoding, found.how, delimiter)


def _check_delimiter(delimiter: str, source: ModuleType, where: str) -> None:
    if not hasattr(source, "delimiter"):
        raise DataError("This kind of file has no delimiter.", where, "Leave the delimiter out.")
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise DataError(f"{delimiter!r} cannot stand between cells.", where, "Give one character, as , ; | or a tab.")


def source_for(name: str, where: str) -> ModuleType:
    """The plug-in that reads a file of this name. Raises: DataError naming the suffixes there are."""
    suffix = PurePath(name).suffix.lower()
    for source in registry.plugins("sartor.data.sources"):
        if suffix in source.SUFFIXES:
            return source
    raise _unsupported(name, where)


def suffixes() -> tuple[str, ...]:
    """The suffixes that are read, without those of packing."""
    return tuple(suffix for source in registry.plugins("sartor.data.sources") for suffix in source.SUFFIXES)


def _unsupported(name: str, where: str) -> DataError:
    return DataError(
        f"Files of kind {PurePath(name).suffix!r} are not read.",
        where,
        f"There are: {', '.join(suffixes())}; each also packed as {', '.join(decompress.COMPRESSED_SUFFIXES)}.",
    )
