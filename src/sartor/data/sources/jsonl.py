"""A file with one JSON object a line; a broken line costs that line only."""

from __future__ import annotations

import json
from collections.abc import Iterator

from sartor.data.raw import Raw

SUFFIXES = (".jsonl", ".ndjson")


def rows(text: str, where: str) -> Iterator[Raw]:
    """Each line that is not blank; `row` counts those, `line` all."""
    number = 0
    for line_number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        number += 1
        try:
            yield Raw(number, line_number, json.loads(line))
        except (ValueError, RecursionError) as error:
            yield Raw(number, line_number, None, fault=str(error))


EXAMPLES = (('{"a": 1}\n\n{"a": "中"}\n', [{"a": 1}, {"a": "中"}]),)
"""(text, rows)"""
