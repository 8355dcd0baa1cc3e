"""Cells of a row as texts and tools: what is missing, what is converted, what is rejected."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sartor.base.i18n import tr
from sartor.base.types import Note, Tool
from sartor.data.json_stream import MAX_DEPTH, LiteralNumber, is_too_deep


class RowRejected(Exception):
    """A row cannot be used; `read_rows.parse_row` turns it into a `Skipped` with the row's origin.

    `code` is one of `base/reasons.py` or of a format's `reasons`; `params` fill its messages.
    """

    def __init__(self, code: str, column: str | None = None, **params: object) -> None:
        super().__init__(code)
        self.code = code
        self.column = column
        self.params = params


@dataclass(slots=True)
class Notes:
    """Counts notes (codes of `base/reasons.py`) about rows that are used all the same."""

    counts: Counter[tuple[str, tuple[tuple[str, object], ...]]] = field(default_factory=Counter)

    def add(self, code: str, **params: object) -> None:
        self.counts[code, tuple(sorted(params.items()))] += 1

    def all(self) -> tuple[Note, ...]:
        return tuple(Note(code, dict(params), count) for (code, params), count in self.counts.items())


def is_missing(value: Any) -> bool:
    """Whether a cell is None, NaN, or only white space."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def kind_of(value: Any) -> str:
    """The type of a JSON value, for messages."""
    return "float" if isinstance(value, LiteralNumber) else type(value).__name__


def text_of(value: Any, column: str, notes: Notes) -> str:
    """A cell as text; numbers become their text (noted). Raises: RowRejected for lists, objects, invalid Unicode."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise RowRejected("broken-unicode", column, field=column) from None
        return value
    if isinstance(value, (int, float)):  # includes bool: a column of true and false answers
        notes.add("number-as-text", field=column)
        return value.literal if isinstance(value, LiteralNumber) else json.dumps(value)
    raise RowRejected("cell-not-text", column, field=column, kind=kind_of(value))


def required_text(row: Mapping[str, Any], column: str, code: str, notes: Notes) -> str:
    """The text of a required column. Raises: RowRejected with `code` when it is missing or blank."""
    value = row.get(column)
    if is_missing(value):
        raise RowRejected(code, column, field=column)
    return text_of(value, column, notes)


def optional_text(row: Mapping[str, Any], column: str | None, notes: Notes) -> str | None:
    """The text of an optional column; None if it is missing or only white space (noted unless it is empty)."""
    value = row.get(column) if column else None
    if is_missing(value):
        if isinstance(value, str) and value:
            notes.add("blank-as-none", field=column)
        return None
    return text_of(value, str(column), notes)


def parse_kto_tag(value: Any, column: str) -> bool:
    """true or false, also as text and as 1 or 0. Raises: RowRejected for anything else."""
    known = {"true": True, "false": False, "1": True, "0": False}
    key = str(value).strip().lower()
    if key not in known:
        raise RowRejected("kto-tag-invalid", column, field=column, value=str(value)[:40])
    return known[key]


def parse_tools(value: Any, column: str, notes: Notes) -> tuple[Tool, ...]:
    """Tools as JSON text or a list; each in OpenAI's form. Raises: RowRejected when it is neither."""
    if is_missing(value) or value == []:
        if isinstance(value, str) and value:
            notes.add("blank-as-none", field=column)
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowRejected("tools-invalid", column, field=column, reason=str(error)) from None
        if is_too_deep(value):
            raise RowRejected(
                "tools-invalid", column, field=column, reason=tr("nested in more than {limit} levels", limit=MAX_DEPTH)
            )
    tools = value if isinstance(value, list) else [value]
    if not all(isinstance(tool, dict) for tool in tools):
        raise RowRejected("tools-invalid", column, field=column, reason=tr("not a list of objects"))
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools)
