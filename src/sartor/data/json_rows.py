"""Rows written as JSON that reads back the same: numbers keep their text, half surrogate pairs their escape."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sartor.base.files import atomic_open
from sartor.data.json_stream import LiteralNumber


def row_text(row: Any) -> str:
    """One row as a line of JSON."""
    return _exact(row) if _has_literal(row) else json.dumps(row, ensure_ascii=False, default=str)


def encoded_row(row: Any) -> bytes:
    """One row as a line of JSON in UTF-8, which cannot hold half of a surrogate pair: that stays an escape."""
    return row_text(row).encode("utf-8", "backslashreplace")


def rows_text(rows: Iterable[Any]) -> str:
    """A JSON array with one row on each line."""
    return "[\n" + ",\n".join(map(row_text, rows)) + "\n]\n"


def write_rows(path: Path, rows: Iterable[Any]) -> int:
    """Write a JSON array with one row on each line, atomically; return how many. Raises: RunError on a full disk."""
    count = 0
    with atomic_open(path) as file:
        file.write(b"[\n")
        for row in rows:
            file.write((b",\n" if count else b"") + encoded_row(row))
            count += 1
        file.write(b"\n]\n")
    return count


def _has_literal(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_literal, value.values()))
    if isinstance(value, list):
        return any(map(_has_literal, value))
    return isinstance(value, LiteralNumber)


def _exact(value: Any) -> str:
    """JSON with the literal text of every number; `json.dumps` writes any subclass of float in its own way."""
    if isinstance(value, LiteralNumber):
        return value.literal
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k), ensure_ascii=False)}: {_exact(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_exact, value)) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)
