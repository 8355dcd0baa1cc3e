"""What reading one file may take: decoded bytes, rows, cells, memory and processor time, by the file's size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from sartor.base.errors import ConfigError, DataError
from sartor.base.i18n import Text, tr

FACTOR = "SARTOR_FILE_BUDGET"
"""Environment variable that multiplies every budget, for files that a person trusts."""
MIB = 1 << 20
FREE_BYTES, MAX_RATIO = 256 * MIB, 200
"""Text compresses 3 to 20 times, a decompression bomb 1,000 times and more."""
FREE_ROWS = 200_000
"""Beyond these, every row needs a byte of the file: 10 million honest rows have hundreds of megabytes."""
FREE_CELLS, CELLS_PER_BYTE = 10_000_000, 64
FREE_MEMORY, MEMORY_PER_BYTE = 768 * MIB, 32
"""A spreadsheet needs about 20 times its size, most of it for Python's texts."""
FREE_CPU_S, CPU_S_PER_MIB = 60, 20
MAX_ROW_CHARACTERS = 16 * MIB
"""Of one JSON value or one line of cells: a longer one is not a row of a dataset, but may hold millions of values."""


@dataclass(frozen=True, slots=True)
class FileBudget:
    """Limits for one file. They grow with its size, so that large honest files pass and small ones stay small."""

    decoded_bytes: int
    rows: int
    cells: int
    memory_bytes: int
    """Of the process that runs a reader which allocates what the file tells it to."""
    cpu_s: int

    @classmethod
    def of(cls, size: int) -> FileBudget:
        """The budget of a file of `size` bytes."""
        times = factor()
        return cls(
            decoded_bytes=int(times * max(FREE_BYTES, MAX_RATIO * size)),
            rows=int(times * (FREE_ROWS + size)),
            cells=int(times * (FREE_CELLS + CELLS_PER_BYTE * size)),
            memory_bytes=int(times * (FREE_MEMORY + MEMORY_PER_BYTE * size)),
            cpu_s=int(times * (FREE_CPU_S + CPU_S_PER_MIB * size // MIB)),
        )


def factor() -> float:
    """What `SARTOR_FILE_BUDGET` says, else 1. Raises: ConfigError for anything but a positive number."""
    given = os.environ.get(FACTOR) or "1"
    try:
        times = float(given)
    except ValueError:
        times = 0.0
    if not 0 < times < 1e6:
        raise ConfigError("{name} is not a positive number.", given, "For example {name}=10.", name=FACTOR)
    return times


def max_row_characters() -> int:
    """Characters of the longest JSON value or line of cells."""
    return int(factor() * MAX_ROW_CHARACTERS)


def over_budget(what: Text, where: str | Text) -> DataError:
    """The error for a file that exceeds its budget: `what` names the limit, the fix how to raise it."""
    fix = tr(
        "If you trust the file, set the environment variable {name}=10 (ten times all limits) and run again.",
        name=FACTOR,
    )
    return DataError(what, where, fix, code="file-budget")


def row_too_long(where: str | Text) -> DataError:
    """The error for a JSON value or a line of cells beyond `max_row_characters`."""
    limit = max_row_characters() // 1_000_000
    return over_budget(tr("A row is longer than {limit:,} million characters.", limit=limit), where)


class BoundedLines:
    """The lines of a text, with their ends; `begin_row` after each row. Raises: DataError for a row too long."""

    def __init__(self, stream: TextIO, where: str) -> None:
        self.stream, self.where = stream, where
        self.limit = self.left = max_row_characters()

    def __iter__(self) -> BoundedLines:
        return self

    def __next__(self) -> str:
        line = self.stream.readline(self.left + 1)
        self.left -= len(line)
        if self.left < 0:
            raise row_too_long(self.where)
        if not line:
            raise StopIteration
        return line

    def begin_row(self) -> None:
        """The lines so far are one row: the next may be as long."""
        self.left = self.limit


def bounded_lines(stream: TextIO, where: str) -> Iterator[str]:
    """The lines of a text, each of which is a row. Raises: DataError for one that is too long."""
    lines = BoundedLines(stream, where)
    for line in lines:
        yield line
        lines.begin_row()
