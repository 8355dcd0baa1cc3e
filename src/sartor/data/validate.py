"""Rules about a value or a row by itself: what is text, what is missing, what cannot be used; no files, no tokens."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sartor.base.types import Note, Tool


class RowRejected(Exception):
    """A row cannot be used; caught where the row's origin is known and turned into `Skipped`."""

    def __init__(self, code: str, column: str | None = None, **params: object) -> None:
        super().__init__(code)
        self.code = code
        self.column = column
        self.params = params


@dataclass(slots=True)
class Notes:
    """Counts remarks that lose no row, one line for each kind."""

    counts: Counter[tuple[str, tuple[tuple[str, object], ...]]] = field(default_factory=Counter)

    def add(self, code: str, **params: object) -> None:
        self.counts[code, tuple(sorted(params.items()))] += 1

    def all(self) -> tuple[Note, ...]:
        return tuple(Note(code, dict(params), count) for (code, params), count in self.counts.items())


def is_missing(value: Any) -> bool:
    """None, NaN, or text of blanks only."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def text_of(value: Any, column: str, notes: Notes) -> str:
    """A cell as text; numbers become their text (noted). Raises: Unusable for lists, objects, broken Unicode."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise RowRejected("broken-unicode", column, field=column) from None
        return value
    if isinstance(value, (int, float)):  # bool too: a column of answers yes/no
        notes.add("number-as-text", field=column)
        return json.dumps(value)
    raise RowRejected("cell-not-text", column, field=column, kind=type(value).__name__)


def required_text(row: Mapping[str, Any], column: str, code: str, notes: Notes) -> str:
    """The text of a column that must be there. Raises: Unusable with `code` when it is missing or blank."""
    value = row.get(column)
    if is_missing(value):
        raise RowRejected(code, column, field=column)
    return text_of(value, column, notes)


def optional_text(row: Mapping[str, Any], column: str | None, notes: Notes) -> str | None:
    """The text of a column that may be absent; blanks mean none (noted when it is more than the empty text)."""
    value = row.get(column) if column else None
    if is_missing(value):
        if isinstance(value, str) and value:
            notes.add("blank-as-none", field=column)
        return None
    return text_of(value, str(column), notes)


def parse_tools(value: Any, column: str, notes: Notes) -> tuple[Tool, ...]:
    """Tools as JSON text or a list; each in OpenAI's form. Raises: Unusable when it is neither."""
    if is_missing(value) or value == []:
        if isinstance(value, str) and value:
            notes.add("blank-as-none", field=column)
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowRejected("tools-invalid", column, field=column, reason=str(error)) from None
    tools = value if isinstance(value, list) else [value]
    if not all(isinstance(tool, dict) for tool in tools):
        raise RowRejected("tools-invalid", column, field=column, reason="not a list of objects")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools)
