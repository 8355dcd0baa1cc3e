"""What the data pages show of files and datasets: small values, made by the process that reads for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sartor.base.types import Ledger, Origin, Skipped
from sartor.checks.finding import Finding
from sartor.data.import_record import ImportSummary

T = TypeVar("T", Skipped, Finding)
PER_CODE = 200
"""Skipped rows of one reason that are shown."""


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """Skipped rows or findings of one code: how many, and the first of them."""

    code: str
    count: int
    first: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class ShownDataset:
    """A dataset without its rows; `ledger` has no skipped rows, they are in `skipped`."""

    name: str
    ledger: Ledger
    skipped: tuple[Group[Skipped], ...]
    encodings: tuple[str, ...]
    usable: int
    imported: ImportSummary | None = None

    @property
    def skipped_count(self) -> int:
        return sum(group.count for group in self.skipped)


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A usable row: where it comes from, and (role, text) of each turn."""

    origin: Origin
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ReadingChoices:
    """How the import page reads a file; what is None is detected, and every sheet is read."""

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """What an import wrote, and what became of the file's rows."""

    name: str
    read: int
    training: int
    skipped_count: int
    summary: ImportSummary | None


@dataclass(frozen=True, slots=True)
class JsonText:
    """A row as JSON that a person typed; it is parsed where rows are read."""

    text: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A check of a dataset: the findings, the texts of the rows they compare, and all lengths in tokens."""

    rows: int
    findings: tuple[Group[Finding], ...]
    texts: Mapping[str, str]
    lengths: tuple[int, ...]


def by_code(skipped: tuple[Skipped, ...]) -> tuple[Group[Skipped], ...]:
    """Skipped rows by their reason, in order of first appearance."""
    groups: dict[str, list[Skipped]] = {}
    counts: dict[str, int] = {}
    for one in skipped:
        counts[one.code] = counts.get(one.code, 0) + 1
        if counts[one.code] <= PER_CODE:
            groups.setdefault(one.code, []).append(one)
    return tuple(Group(code, counts[code], tuple(first)) for code, first in groups.items())
