"""One data file, ready to be read: decompressed, its encoding detected, its source chosen by its suffix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from sartor.base.errors import DataError
from sartor.base.i18n import Text, tr
from sartor.base.types import RawRow
from sartor.data import decompress
from sartor.data import encoding as encodings
from sartor.data.sources import SOURCES, Source, suffixes


@dataclass(frozen=True, slots=True)
class DataFile:
    """An open file: its source, its text encoding (None where it is not text) and how that was found."""

    path: Path
    """The decompressed file."""
    where: str
    """The original file, for messages."""
    source: Source
    encoding: str | None
    how: Text

    def rows(self) -> Iterator[RawRow]:
        """The rows, one at a time. Raises: DataError as the source does."""
        return self.source.rows(self.path, self.where, self.encoding or "")

    def header(self) -> list[str]:
        """The column names of a file with a header line; empty for others."""
        return self.source.header(self.path, self.where, self.encoding or "")

    def detect_delimiter(self) -> str | None:
        """The character between cells; None for a file without cells."""
        return self.source.detect_delimiter(self.path, self.encoding or "")


@contextmanager
def open_data_file(path: Path, encoding: str | None = None, delimiter: str | None = None) -> Iterator[DataFile]:
    """A data file; what had to be decompressed is removed afterwards.

    `encoding` and `delimiter` (one character) override what would be detected. Raises: DataError for a suffix that no
    source reads, a damaged archive, or an encoding that does not decode the file or cannot be determined.
    """
    where = str(path)
    if path.suffix.lower() not in (*decompress.COMPRESSED_SUFFIXES, *suffixes()):
        raise _unsupported(path.name, where)
    with decompress.decompressed(path, where) as (plain, name):
        source = source_for(name, where)
        if delimiter is not None:
            source = source.with_delimiter(delimiter, where)
        if source.is_text:
            found = encodings.detect_encoding(plain, encoding, where)
            yield DataFile(plain, where, source, found.encoding, found.how)
        else:
            yield DataFile(plain, where, source, None, tr("not a text file"))


def raw_rows(path: Path, encoding: str | None = None, delimiter: str | None = None) -> Iterator[RawRow]:
    """The rows of one file, one at a time. Raises: DataError as `open_data_file` does."""
    with open_data_file(path, encoding, delimiter) as file:
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
