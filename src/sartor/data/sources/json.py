"""A JSON file: an array of objects, or an object whose `data` is one; read row by row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from sartor.base.types import RawRow
from sartor.data.encoding import open_text
from sartor.data.json_stream import ArrayReader
from sartor.data.sources import jsonl

SUFFIXES = (".json",)
TEXT = True
LONGEST_LINE = 1 << 24


def rows(path: Path, where: str, encoding: str) -> Iterator[RawRow]:
    """Each element with its number from 1; lines of JSON under the wrong name are read as such.

    Raises: DataError naming line and column of a syntax error, or when the file holds no list.
    """
    if _is_lines(path, encoding):
        yield from jsonl.rows(path, where, encoding)
        return
    with open_text(path, encoding) as stream:
        yield from ArrayReader(stream, where).rows()


def _is_lines(path: Path, encoding: str) -> bool:
    """Whether the first line is an object by itself and the next begins another."""
    with open_text(path, encoding, newline="\n") as stream:
        first = stream.readline(LONGEST_LINE)
        if not first.startswith("{") or not first.endswith("\n") or not stream.readline(16).startswith("{"):
            return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


EXAMPLES = (
    ('[{"a": 1}, {"a": "中"}]', [{"a": 1}, {"a": "中"}]),
    ('{"version": 1, "data": [{"a": null}]}', [{"a": None}]),
    ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
)
"""(text, rows)"""
