"""A JSON file: an array of objects, or an object whose `data` is one; read row by row."""

from __future__ import annotations

import json
from collections.abc import Iterator

from sartor.base.open_file import OpenFile
from sartor.base.types import RawRow
from sartor.data.encoding import open_text
from sartor.data.json_stream import ArrayReader
from sartor.data.sources import Source, jsonl

MAX_LINE = 1 << 24
"""Characters of the first line that are read to find out whether the file is JSON Lines."""


class JsonSource(Source):
    """An array of rows; JSON Lines under the name `.json` are read as such."""

    name = "json"
    suffixes = (".json",)

    def rows(self, file: OpenFile, where: str, encoding: str) -> Iterator[RawRow]:
        """Raises: DataError naming line and column of a syntax error, or when the file has no list of rows."""
        if _is_json_lines(file, encoding):
            yield from jsonl.PLUGIN.rows(file, where, encoding)
            return
        with open_text(file, encoding) as stream:
            yield from ArrayReader(stream, where).rows()


def _is_json_lines(file: OpenFile, encoding: str) -> bool:
    """Whether the first line is an object by itself and the next begins another."""
    with open_text(file, encoding, newline="\n") as stream:
        first = stream.readline(MAX_LINE)
        if not first.startswith("{") or not first.endswith("\n") or not stream.readline(16).startswith("{"):
            return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


PLUGIN = JsonSource()
EXAMPLES = (
    ('[{"a": 1}, {"a": "中"}]', [{"a": 1}, {"a": "中"}]),
    ('{"version": 1, "data": [{"a": null}]}', [{"a": None}]),
    ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
)
"""(text, rows)."""
