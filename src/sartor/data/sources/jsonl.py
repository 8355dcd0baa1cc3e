"""A file with one JSON object a line; a broken line costs that line only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sartor.base.types import RawRow
from sartor.data.encoding import open_text
from sartor.data.json_stream import LineReader

SUFFIXES = (".jsonl", ".ndjson")
TEXT = True


def rows(path: Path, where: str, encoding: str) -> Iterator[RawRow]:
    """Each line that is not blank; `row` counts those, `line` all."""
    reader = LineReader()
    number = 0
    with open_text(path, encoding, newline="\n") as lines:
        for line_number, line in enumerate(lines, 1):
            if not line.isspace():
                number += 1
                yield reader.read(line.strip(), number, line_number)


EXAMPLES = (('{"a": 1}\n\n{"a": "中"}\n', [{"a": 1}, {"a": "中"}]),)
"""(text, rows)"""
