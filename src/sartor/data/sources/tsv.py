"""A file with tabs between cells, under a header line; commas are ordinary text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sartor.data.sources import csv


@dataclass(frozen=True, slots=True)
class TsvSource(csv.CsvSource):
    """As CSV, with a tab as the delimiter unless the header has none."""

    name: ClassVar[str] = "tsv"
    suffixes: ClassVar[tuple[str, ...]] = (".tsv", ".tab")

    def find_delimiter(self, sample: str) -> str:
        return "\t" if "\t" in sample.split("\n", 1)[0] else csv.find_delimiter(sample)


PLUGIN = TsvSource()
EXAMPLES = (("q\ta\n1,5\t2,5\n3,5\t4,5\n", [{"q": "1,5", "a": "2,5"}, {"q": "3,5", "a": "4,5"}]),)
"""(text, rows)."""
