"""A file with one JSON object per line; an invalid line costs that line only."""

from __future__ import annotations

from collections.abc import Iterator

from sartor.base.file_budget import bounded_lines
from sartor.base.open_file import OpenFile
from sartor.base.types import RawRow
from sartor.data.encoding import open_text
from sartor.data.json_stream import LineReader
from sartor.data.sources import Source


class JsonlSource(Source):
    """JSON Lines."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson")

    def rows(self, file: OpenFile, where: str, encoding: str) -> Iterator[RawRow]:
        """`row` counts the lines that are not blank, `line` all of them."""
        reader = LineReader()
        number = 0
        with open_text(file, encoding, newline="\n") as lines:
            for line_number, line in enumerate(bounded_lines(lines, where), 1):
                if not line.isspace():
                    number += 1
                    yield reader.read(line.strip(), number, line_number)


PLUGIN = JsonlSource()
EXAMPLES = (('{"a": 1}\n\n{"a": "中"}\n', [{"a": 1}, {"a": "中"}]),)
"""(text, rows)."""
