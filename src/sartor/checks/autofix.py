"""Mends what has one safe mending in raw rows, and says what it changed; touches nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from sartor.base.files import atomic_open
from sartor.base.reasons import reason_of
from sartor.base.types import Origin
from sartor.data.dataset_info import DatasetSpec

if TYPE_CHECKING:
    from sartor.base.permissions import Permissions

ROLES = {
    "human": "user_tag",
    "user": "user_tag",
    "question": "user_tag",
    "gpt": "assistant_tag",
    "assistant": "assistant_tag",
    "bot": "assistant_tag",
    "model": "assistant_tag",
    "ai": "assistant_tag",
    "chatgpt": "assistant_tag",
    "answer": "assistant_tag",
    "system": "system_tag",
    "developer": "system_tag",
    "tool": "observation_tag",
    "observation": "observation_tag",
    "tool_response": "observation_tag",
}
"""Role synonyms (lower case) → the tag whose word is written instead."""
BLANK_MEANS_NONE = ("system", "tools")
Change: TypeAlias = tuple[Origin, str, str]
"""Row, field, code; the code's text stands in the catalogue."""


@dataclass(frozen=True, slots=True)
class FixResult:
    """How many rows were written, and each change."""

    rows: int
    changes: tuple[Change, ...]

    @property
    def summary(self) -> dict[str, int]:
        return dict(Counter(code for _, _, code in self.changes).most_common())

    def lines(self) -> list[str]:
        """One sentence a kind of change."""
        return [str(reason_of(code, {"count": count})) for code, count in self.summary.items()]


def raw_rows(
    spec: DatasetSpec, encoding: str | None = None, permissions: Permissions | None = None
) -> Iterator[tuple[Origin, Any]]:
    """Every row of a dataset's files as it stands there, bad ones too. Raises: DataError as `load` does."""
    from sartor.data.load import read_raw

    for origin, raw in read_raw(spec, encoding=encoding, permissions=permissions):
        yield origin, raw.value


def apply_fixes(path: Path, rows: Iterable[tuple[Origin, Any]], spec: DatasetSpec) -> FixResult:
    """Write all rows as a JSON array with the safe mendings done: blank system and tools removed, role synonyms, byte
    order marks, white space at the end of texts, numbers where text belongs.

    Returns what was changed. Raises: RunError on a full disk.
    """
    changes: list[Change] = []
    count = 0
    with atomic_open(path) as file:
        file.write(b"[\n")
        for origin, row in rows:
            mended = _fix_row(row, origin, spec, changes)
            file.write((b",\n" if count else b"") + orjson.dumps(mended, default=str, option=orjson.OPT_NON_STR_KEYS))
            count += 1
        file.write(b"\n]\n")
    return FixResult(count, tuple(changes))


def _fix_row(row: Any, origin: Origin, spec: DatasetSpec, changes: list[Change]) -> Any:
    if not isinstance(row, Mapping):
        return row
    columns = spec.columns
    texts = {columns[name] for name in ("prompt", "query", "response", "system", "chosen", "rejected")}
    optional = {columns[name] or name for name in BLANK_MEANS_NONE}
    mended: dict[str, Any] = {}
    for written, value in row.items():
        key = written.replace("\ufeff", "")
        if key != written:
            changes.append((origin, key, "mended-bom"))
        if key in optional and isinstance(value, str) and value and not value.replace("\ufeff", "").strip():
            changes.append((origin, key, "mended-blank"))
        elif key == columns["messages"] and isinstance(value, list):
            mended[key] = [_fix_turn(turn, f"{key}[{n}]", origin, spec, changes) for n, turn in enumerate(value)]
        elif isinstance(value, str) or key in texts:
            mended[key] = _fix_text(value, key, origin, changes)
        else:
            mended[key] = value
    return mended


def _fix_turn(turn: Any, place: str, origin: Origin, spec: DatasetSpec, changes: list[Change]) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    mended = dict(turn)
    role_key, content_key = spec.tags["role_tag"], spec.tags["content_tag"]
    known = {spec.tags[tag] for tag in spec.tags if tag not in ("role_tag", "content_tag")}
    role = turn.get(role_key)
    if isinstance(role, str) and role not in known and (meaning := ROLES.get(role.strip().lower())):
        mended[role_key] = spec.tags[meaning]
        changes.append((origin, f"{place}.{role_key}", "mended-role"))
    if content_key in turn:
        mended[content_key] = _fix_text(turn[content_key], f"{place}.{content_key}", origin, changes)
    return mended


def _fix_text(value: Any, place: str, origin: Origin, changes: list[Change]) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        changes.append((origin, place, "mended-number"))
        return str(value)
    if not isinstance(value, str):
        return value
    mended = value.replace("\ufeff", "")
    if mended != value:
        changes.append((origin, place, "mended-bom"))
    if (trimmed := mended.rstrip()) != mended:
        changes.append((origin, place, "mended-space"))
    return trimmed
