"""Fix what has exactly one safe fix in raw rows, and report what was changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from sartor.base.i18n import Text, ntr
from sartor.base.types import Origin, RawRow, Skipped
from sartor.checks.lint_input import row_of
from sartor.checks.rules.personal import masked
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.json_rows import write_rows
from sartor.data.json_stream import LiteralNumber
from sartor.data.read_rows import parse_row
from sartor.data.validate import Notes

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
"""Role synonyms (lower case) → the tag whose word replaces them."""
REMOVED_IF_BLANK = ("system", "tools")
MESSAGES: Mapping[str, Callable[[int], Text]] = {
    "fixed-bom": lambda n: ntr("{count} byte order mark removed.", "{count} byte order marks removed.", count=n),
    "fixed-blank": lambda n: ntr(
        "{count} blank system or tools field removed.", "{count} blank system or tools fields removed.", count=n
    ),
    "fixed-role": lambda n: ntr(
        "{count} role replaced by the dataset's own word.",
        "{count} roles replaced by the dataset's own words.",
        count=n,
    ),
    "fixed-number": lambda n: ntr("{count} number converted to text.", "{count} numbers converted to text.", count=n),
    "fixed-personal": lambda n: ntr(
        "{count} address or number of a person masked.", "{count} addresses and numbers of persons masked.", count=n
    ),
    "fixed-repeat": lambda n: ntr("{count} repeated row left out.", "{count} repeated rows left out.", count=n),
    "fixed-unreadable": lambda n: ntr(
        "{count} row that cannot be read left out.", "{count} rows that cannot be read left out.", count=n
    ),
    "fixed-space": lambda n: ntr(
        "Trailing white space removed from {count} text.", "Trailing white space removed from {count} texts.", count=n
    ),
}
"""Code of a change → its message for a number of changes."""
Change: TypeAlias = tuple[Origin, str, str]
"""Row, field, code (a key of `MESSAGES`)."""


@dataclass(frozen=True, slots=True)
class FixResult:
    """How many rows were written, and every change."""

    rows: int
    changes: tuple[Change, ...]

    @property
    def summary(self) -> dict[str, int]:
        return dict(Counter(code for _, _, code in self.changes).most_common())

    def lines(self) -> list[str]:
        """One sentence for each kind of change."""
        return [str(MESSAGES[code](count)) for code, count in self.summary.items()]


def apply_fixes(
    path: Path,
    rows: Iterable[tuple[Origin, Any]],
    spec: DatasetSpec,
    *,
    remove_repeats: bool = False,
    mask_personal: bool = False,
) -> FixResult:
    """Write all rows as a JSON array, fixed: blank system and tools, role synonyms, byte order marks, trailing white
    space, numbers in place of texts.

    On request rows that say the same as an earlier one are left out, and e-mail addresses, phone and identity numbers
    are replaced by a placeholder. Returns what was changed. Raises: RunError on a full disk.
    """
    changes: list[Change] = []
    seen: set[str] = set()

    def fixed() -> Iterator[Any]:
        for origin, row in rows:
            if row is None:
                changes.append((origin, "", "fixed-unreadable"))
                continue
            made = _fix_row(row, origin, spec, changes)
            if mask_personal:
                made = _masked(made, "", origin, changes)
            if remove_repeats and (said := _said(made, spec, origin)) is not None:
                if said in seen:
                    changes.append((origin, "", "fixed-repeat"))
                    continue
                seen.add(said)
            yield made

    return FixResult(write_rows(path, fixed()), tuple(changes))


def _said(row: Any, spec: DatasetSpec, origin: Origin) -> str | None:
    """The texts that a row trains on, without differences of white space; None for a row that cannot be used."""
    stage = "pt" if spec.columns_given == {"prompt"} else "sft"
    example = parse_row(RawRow(origin.row, origin.line, row), spec, origin, stage, Notes())
    return None if isinstance(example, Skipped) else repr([(n, " ".join(t.split())) for n, t in row_of(example).parts])


def _masked(value: Any, place: str, origin: Origin, changes: list[Change]) -> Any:
    """A value with placeholders for personal data in all of its texts."""
    if isinstance(value, dict):
        return {key: _masked(part, f"{place}.{key}".lstrip("."), origin, changes) for key, part in value.items()}
    if isinstance(value, list):
        return [_masked(part, f"{place}[{number}]", origin, changes) for number, part in enumerate(value)]
    if not isinstance(value, str):
        return value
    text, count = masked(value)
    changes.extend([(origin, place, "fixed-personal")] * count)
    return text


def _fix_row(row: Any, origin: Origin, spec: DatasetSpec, changes: list[Change]) -> Any:
    if not isinstance(row, Mapping):
        return row
    columns = spec.columns
    texts = {columns[name] for name in ("prompt", "query", "response", "system", "chosen", "rejected")}
    optional = {columns[name] or name for name in REMOVED_IF_BLANK}
    fixed: dict[str, Any] = {}
    for written, value in row.items():
        key = written.replace("\ufeff", "")
        if key != written:
            changes.append((origin, key, "fixed-bom"))
        if key in optional and isinstance(value, str) and value and not value.replace("\ufeff", "").strip():
            changes.append((origin, key, "fixed-blank"))
        elif key == columns["messages"] and isinstance(value, list):
            fixed[key] = [_fix_turn(turn, f"{key}[{n}]", origin, spec, changes) for n, turn in enumerate(value)]
        elif isinstance(value, str) or key in texts:
            fixed[key] = _fix_text(value, key, origin, changes)
        else:
            fixed[key] = value
    return fixed


def _fix_turn(turn: Any, place: str, origin: Origin, spec: DatasetSpec, changes: list[Change]) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    fixed = dict(turn)
    role_key, content_key = spec.tags["role_tag"], spec.tags["content_tag"]
    known = {spec.tags[tag] for tag in spec.tags if tag not in ("role_tag", "content_tag")}
    role = turn.get(role_key)
    if isinstance(role, str) and role not in known and (meaning := ROLES.get(role.strip().lower())):
        fixed[role_key] = spec.tags[meaning]
        changes.append((origin, f"{place}.{role_key}", "fixed-role"))
    if content_key in turn:
        fixed[content_key] = _fix_text(turn[content_key], f"{place}.{content_key}", origin, changes)
    return fixed


def _fix_text(value: Any, place: str, origin: Origin, changes: list[Change]) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        changes.append((origin, place, "fixed-number"))
        return value.literal if isinstance(value, LiteralNumber) else str(value)
    if not isinstance(value, str):
        return value
    fixed = value.replace("\ufeff", "")
    if fixed != value:
        changes.append((origin, place, "fixed-bom"))
    if (trimmed := fixed.rstrip()) != fixed:
        changes.append((origin, place, "fixed-space"))
    return trimmed
