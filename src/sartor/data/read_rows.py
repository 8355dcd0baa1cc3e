"""Raw rows to examples: each row becomes an `Example` or a `Skipped` with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sartor.base.errors import DataError, close_matches
from sartor.base.i18n import Text, tr
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.types import Example, Origin, RawRow, Skipped
from sartor.data.access import dataset_place
from sartor.data.dataset_files import open_parts
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.formats import FORMATS
from sartor.data.validate import Notes, RowRejected, is_missing, kind_of

REQUIRED = ("prompt", "response", "messages", "chosen", "rejected", "kto_tag")
"""Fields whose named column must be in some row; for other fields a missing column is noted."""


def read_raw(
    spec: DatasetSpec, *, encoding: str | None = None, permissions: Permissions = NOTHING_ALLOWED
) -> Iterator[tuple[Origin, RawRow]]:
    """Every row of a dataset as its files have it, unreadable ones too, one at a time. Raises: DataError as `load`."""
    for part in open_parts(spec, permissions, encoding):
        for raw in part.rows:
            yield part.origin(raw), raw


def read_values(
    spec: DatasetSpec, encoding: str | None = None, permissions: Permissions | None = None
) -> Iterator[tuple[Origin, Any]]:
    """Every row's value as its file has it; None for an unreadable row. Raises: DataError as `load` does."""
    for origin, raw in read_raw(spec, encoding=encoding, permissions=permissions or NOTHING_ALLOWED):
        yield origin, raw.value


def read_examples(
    spec: DatasetSpec, *, stage: str = "sft", encoding: str | None = None, permissions: Permissions = NOTHING_ALLOWED
) -> Iterator[tuple[RawRow, Example | Skipped]]:
    """Every row of a dataset and what it becomes, one at a time. Raises: DataError as `load` does."""
    notes = Notes()
    for part in open_parts(spec, permissions, encoding):
        for raw in part.rows:
            yield raw, parse_row(raw, part.spec, part.origin(raw), stage, notes)


def parse_row(raw: RawRow, spec: DatasetSpec, origin: Origin, stage: str, notes: Notes) -> Example | Skipped:
    """One raw row as an example, or the reason why it is skipped."""
    if raw.fault is not None:
        return Skipped(origin, "row-broken", None, {"reason": raw.fault})
    if not isinstance(raw.value, dict):
        return Skipped(origin, "row-not-object", None, {"kind": kind_of(raw.value)})
    try:
        return FORMATS.get(spec.formatting).parse(raw.value, spec, origin, stage, notes)
    except RowRejected as reason:
        return Skipped(origin, reason.code, reason.column, reason.params)


def check_columns(spec: DatasetSpec, seen: set[str], stage: str, notes: Notes) -> None:
    """Note named columns that no row has, known columns that are not mapped, and defaults that are used.

    Raises: DataError for a named column that the stage needs and no row has.
    """
    if not seen:
        return
    needed = FORMATS.get(spec.formatting).fields(spec, stage)
    for name in sorted(spec.columns_given):
        column = spec.columns[name]
        if not column or column in seen:
            continue
        if name in REQUIRED and name in needed:
            raise DataError(
                "No row has the column {column!r} (columns.{field}).",
                dataset_place(spec),
                available_columns(column, seen),
                column=column,
                field=name,
            )
        notes.add("column-absent", field=name, column=column)
    mapped = {column for column in spec.columns.values() if column}
    for name in ("system", "tools", "history"):
        if name in seen and name not in mapped and not spec.columns[name]:
            notes.add("column-unmapped", column=name)
    for name in needed & {"prompt", "query", "response"}:
        column = spec.columns[name]
        if spec.columns_given and name not in spec.columns_given and column in seen:
            notes.add("default-column", field=name, column=column)
    required = {name for name in needed if name in REQUIRED}
    for name in sorted(required - spec.columns_given):
        column = spec.columns[name]
        if column and column not in seen and name == "response" and spec.columns_given == {"prompt"}:
            raise DataError(
                "The rows are documents, without answers.",
                dataset_place(spec),
                'Add stage=pt, or name the answers: "columns": {{"response": …}}.',
                code="documents",
            )
        if column and column not in seen:
            raise DataError(
                "No row has the column {column!r} ({field}).",
                dataset_place(spec),
                'Map it: "columns": {{"{field}": …}}. Available: {available}.',
                column=column,
                field=name,
                available=", ".join(sorted(map(str, seen))),
            )


def available_columns(wanted: str, columns: Iterable[str]) -> Text:
    """The fix for a missing column: the nearest one, and all there are."""
    listed = ", ".join(repr(name) for name in sorted(map(str, columns)))
    if near := close_matches(wanted, columns, 1):
        return tr("Did you mean {name!r}? Available: {available}.", name=near[0], available=listed)
    return tr("Available: {available}.", available=listed)


def columns_of(rows: Iterable[Any]) -> list[str]:
    """The columns that have a value in some row, in order of first appearance."""
    names: dict[str, None] = {}
    for row in rows:
        if isinstance(row, dict):
            names.update(dict.fromkeys(name for name, value in row.items() if not is_missing(value)))
    return list(names)
