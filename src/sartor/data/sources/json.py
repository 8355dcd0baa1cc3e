"""A JSON file: an array of objects, or an object whose `data` is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sartor.base.errors import DataError
from sartor.data.dataset_info import parse_json
from sartor.data.raw import Raw

SUFFIXES = (".json",)


def rows(text: str, where: str) -> Iterator[Raw]:
    """Each element with its number from 1.

    Raises: DataError naming line and column of a syntax error, or when the file holds no list.
    """
    value: Any = parse_json(text, where)
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if not isinstance(value, list):
        raise DataError("The file holds no list of rows.", where, 'Write [{…}, {…}], or {"data": [{…}]}.')
    for number, row in enumerate(value, 1):
        yield Raw(number, None, row)


EXAMPLES = (('[{"a": 1}, {"a": "中"}]', [{"a": 1}, {"a": "中"}]), ('{"data": [{"a": null}]}', [{"a": None}]))
"""(text, rows)"""
