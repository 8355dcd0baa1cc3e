"""Sources: one file per kind of data file that rows are read from.

To add a kind of file, put a file with a `Source` subclass and `PLUGIN = MySource()` into this folder, or register it
from your own package:

    [project.entry-points."sartor.sources"]
    mine = "my_package.my_source:PLUGIN"

Compression (`.gz`, `.zip`, …) and the detection of encodings happen before a source is asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from sartor.base.errors import DataError
from sartor.base.open_file import OpenFile
from sartor.base.registry import Registry
from sartor.base.types import RawRow


class Source(ABC):
    """How the rows of one kind of file are read."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """The file name suffixes, in lower case with their dot, that select this source."""
    is_text: ClassVar[bool] = True
    """Whether the file is text, whose encoding is then found and given to the methods."""
    reads_foreign_layout: ClassVar[bool] = False
    """Whether its library allocates what the file tells it to: such files are read in a process with limits."""
    has_sheets: ClassVar[bool] = False
    """Whether such a file can have several tables; `sheets` names them."""
    text_column: ClassVar[str | None] = None
    """The only column of a file of plain text; read as the prompt unless the entry maps one."""

    @abstractmethod
    def rows(self, file: OpenFile, where: str, encoding: str) -> Iterator[RawRow]:
        """The rows, one at a time, numbered from 1; a row that cannot be read has a `fault` instead of a value.

        `file` is the decompressed file (`file.open()` gives streams), `where` the name to show in errors, `encoding`
        one that decodes the whole file ("" where `is_text` is false). Raises: DataError when the file as a whole
        cannot be read.
        """

    def header(self, file: OpenFile, where: str, encoding: str) -> list[str]:
        """The column names in the order of the file; empty for kinds of files without a header line."""
        return []

    def detect_delimiter(self, file: OpenFile, encoding: str) -> str | None:
        """The character between cells; None for kinds of files without cells."""
        return None

    def with_delimiter(self, delimiter: str, where: str) -> Source:
        """The same source with a given delimiter instead of a detected one.

        Raises: DataError when this kind of file has no delimiter, or for a character that cannot be one.
        """
        raise DataError("Files of this kind have no delimiter.", where, "Omit the delimiter.")

    def with_sheet(self, sheet: str, where: str) -> Source:
        """The same source for one sheet instead of all. Raises: DataError when this kind of file has no sheets."""
        raise DataError("Files of this kind have no sheets.", where, "Omit the sheet.")

    def sheets(self, file: OpenFile, where: str) -> tuple[str, ...]:
        """The names that `with_sheet` takes; empty for kinds of files without sheets. Raises: DataError as `rows`."""
        return ()


SOURCES: Registry[Source] = Registry("source", "sartor.data.sources", Source)
"""Every source by its name; nothing is imported before it is used."""


def suffixes() -> tuple[str, ...]:
    """The suffixes that can be read, without those of compression."""
    return tuple(suffix for source in SOURCES.all() for suffix in source.suffixes)
