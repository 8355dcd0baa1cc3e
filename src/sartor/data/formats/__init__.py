"""Formats: one file per way of writing a conversation as a row (`formatting` in `dataset_info.json`).

To add a format, put a file with a `Format` subclass and `PLUGIN = MyFormat()` into this folder, or register it from
your own package:

    [project.entry-points."sartor.formats"]
    mine = "my_package.my_format:PLUGIN"
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, TypeAlias

from sartor.base.reasons import Reason, add_reasons
from sartor.base.registry import Registry
from sartor.base.types import Demonstration, Example, Feedback, Origin, Preference
from sartor.data.dataset_spec import COLUMNS, TAGS, DatasetSpec
from sartor.data.validate import Notes

Answered: TypeAlias = Demonstration | Preference | Feedback


class Format(ABC):
    """How one row becomes an `Example`."""

    name: ClassVar[str]
    """The value of `formatting` that selects this format."""
    columns: ClassVar[Mapping[str, str | None]] = COLUMNS
    """Field → default column, for every key of `COLUMNS`. An entry's `columns` are merged onto it."""
    tags: ClassVar[Mapping[str, str]] = TAGS
    """Tag → default word, for every key of `TAGS`. An entry's `tags` are merged onto it."""
    reasons: ClassVar[Mapping[str, Reason]] = {}
    """The messages of the codes that only this format rejects rows with."""

    @abstractmethod
    def parse(self, row: Mapping[str, Any], spec: DatasetSpec, origin: Origin, stage: str, notes: Notes) -> Example:
        """One row as an example for `stage` (pt, sft, rm, dpo, kto).

        Raises: RowRejected with the code of what is wrong; the row is then skipped and counted, nothing stops.
        """

    def fields(self, spec: DatasetSpec, stage: str) -> set[str]:
        """The fields (keys of `COLUMNS`) that `parse` reads at this stage; missing columns are reported for these."""
        if stage == "pt":
            return {"prompt"}
        answers = {"chosen", "rejected"} if spec.ranking else set()
        return {"messages"} | answers | ({"kto_tag"} if spec.columns["kto_tag"] else set())

    def recognize(self, columns: Collection[str]) -> Mapping[str, Any] | None:
        """The keys of a registry entry for a file that has these columns; None if it is not in this format."""
        return None


class WritableFormat(Format):
    """A format that `sartor import` can write questions and answers in."""

    @abstractmethod
    def to_row(self, example: Answered) -> dict[str, Any]:
        """A row that `parse` reads back as this example: one question, and one answer or two; perhaps a system text."""

    @abstractmethod
    def written_columns(self, preference: bool = False) -> dict[str, str]:
        """The `columns` of the registry entry for rows of `to_row`, without system, tools and kto_tag."""


FORMATS: Registry[Format] = Registry("format", "sartor.data.formats", Format)
"""Every format by its name; nothing is imported before it is used."""
add_reasons(lambda: [format.reasons for format in FORMATS.all()])


def optional_columns(columns: Collection[str], *names: str) -> dict[str, str]:
    """`{name: name}` for those of the optional fields that a file has a column for."""
    return {name: name for name in names if name in columns}
