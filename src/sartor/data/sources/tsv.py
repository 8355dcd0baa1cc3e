"""A file of cells between tabs under a header line; commas in it are text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sartor.base.types import RawRow
from sartor.data.encoding import open_text
from sartor.data.sources import csv

SUFFIXES = (".tsv", ".tab")
TEXT = True


def rows(path: Path, where: str, encoding: str) -> Iterator[RawRow]:
    """As for CSV, with a tab between the cells, or what the file has where it has no tab."""
    yield from csv.records(path, where, encoding, delimiter(path, encoding))


def delimiter(path: Path, encoding: str) -> str:
    """A tab, where the first line has one; else what is found as for CSV."""
    with open_text(path, encoding) as file:
        sample = file.read(65536)
    return "\t" if "\t" in sample.split("\n", 1)[0] else csv.delimiter_of(sample)


def header(path: Path, where: str, encoding: str) -> list[str]:
    """The column names. Raises: DataError as for CSV."""
    return csv.header(path, where, encoding, delimiter(path, encoding))


EXAMPLES = (("q\ta\n1,5\t2,5\n3,5\t4,5\n", [{"q": "1,5", "a": "2,5"}, {"q": "3,5", "a": "4,5"}]),)
"""(text, rows)"""
