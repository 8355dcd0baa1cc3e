"""What an import read, kept and refused, in a file beside the dataset; its later versions have one too."""

from __future__ import annotations

import bisect
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError
from sartor.base.files import atomic_open, sha256_file
from sartor.base.i18n import Text
from sartor.base.reasons import fix_of, reason_of
from sartor.base.types import Note, Origin, Place, RawRow, Skipped
from sartor.data.dataset_info import beside
from sartor.data.json_rows import encoded_row

SUFFIX = "import.jsonl"


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """The first line of a record: the file, and read = kept + refused."""

    file: str
    sha256: str
    encoding: str
    columns: Mapping[str, str]
    """Field → column, as the file was read."""
    read: int
    refused: int
    repaired: int = 0
    """How many of the refused rows were repaired since, in this version of the dataset."""
    dataset_sha256: str = ""
    """Of the dataset's file as it was written: `places` are those of its rows and of no others."""
    places: Sequence[Sequence[int | None]] = ()
    """Where the dataset's rows are in the imported file, in order, as `ImportedPlaces.runs`."""

    @property
    def kept(self) -> int:
        return self.read - self.refused

    def note(self, dataset: str, folder: Path) -> Note:
        """For the ledger of the dataset."""
        params = {name: getattr(self, name) for name in ("file", "read", "kept", "refused", "repaired")}
        return Note("refused-at-import", params | {"record": record_path(folder, dataset).name})


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that was not imported: where it is in the imported file, why, and what it says."""

    file: str
    row: int
    line: int | None
    code: str
    field: str | None
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Any = None
    """The row, where it could be read."""
    text: str | None = None
    """The row as the file has it, where it could not."""
    repaired: bool = False

    @classmethod
    def of(cls, skipped: Skipped, raw: RawRow) -> RefusedRow:
        params = {name: value.to_json() if isinstance(value, Text) else value for name, value in skipped.params.items()}
        place = skipped.origin
        return cls(place.file, place.row, place.line, skipped.code, skipped.field, params, raw.value, raw.text)

    @property
    def reason(self) -> Text:
        return reason_of(self.code, self._params())

    @property
    def fix(self) -> Text:
        return fix_of(self.code, self._params())

    def origin(self, dataset: str) -> Origin:
        """Where the row is in the imported file."""
        return Origin(dataset, self.file, self.row, self.line)

    def _params(self) -> dict[str, object]:
        return {
            name: Text.from_json(value) if isinstance(value, dict) else value for name, value in self.params.items()
        }


@dataclass(frozen=True, slots=True)
class ImportedPlaces:
    """Where the rows of a dataset are in the file that it was imported from."""

    file: str
    runs: Sequence[tuple[int, int | None, int]]
    """(row, line, how many rows follow one another so); row 0 for rows that are not in it."""
    ends: Sequence[int]
    """The number of rows up to the end of each run."""

    def of(self, row: int) -> Place | None:
        """The place of a row of the dataset; None for one that is not in the file."""
        run = bisect.bisect_left(self.ends, row)
        if run == len(self.runs):
            return None
        first, line, count = self.runs[run]
        further = row - (self.ends[run] - count) - 1
        return Place(self.file, first + further, None if line is None else line + further) if first else None


def runs_of(places: Iterable[Place | None]) -> list[tuple[int, int | None, int]]:
    """Places in the order of a dataset's rows, as `ImportedPlaces.runs`."""
    runs: list[tuple[int, int | None, int]] = []
    for place in places:
        row, line = (place.row, place.line) if place else (0, None)
        first, first_line, count = runs[-1] if runs else (-1, None, 0)
        next_line = None if first_line is None else first_line + count
        if (row, line) == ((first + count, next_line) if first else (0, None)):
            runs[-1] = (first, first_line, count + 1)
        else:
            runs.append((row, line, 1))
    return runs


def imported_places(dataset_dir: Path, dataset: str, sha256: str) -> ImportedPlaces | None:
    """Where the rows of a dataset's file with this hash were imported from; None where that is not known.

    Raises: DataError when the record is damaged.
    """
    summary = read_summary(dataset_dir, dataset)
    if summary is None or not summary.places or summary.dataset_sha256 != sha256:
        return None
    try:
        runs = [(int(row), None if line is None else int(line), int(n)) for row, line, n in summary.places]  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise _damaged(record_path(dataset_dir, dataset), error) from None
    return ImportedPlaces(summary.file, runs, list(accumulate(count for _, _, count in runs)))


def record_path(dataset_dir: Path, dataset: str) -> Path:
    """The file of a dataset's import, beside its registry."""
    return beside(dataset_dir, dataset, SUFFIX)


def write_record(dataset_dir: Path, dataset: str, summary: ImportSummary, refused: Iterable[RefusedRow]) -> Path:
    """Write what an import did: a line of counts, then a line for each refused row. Raises: RunError on a full disk."""
    path = record_path(dataset_dir, dataset)
    with atomic_open(path) as file:
        for line in ({"import": asdict(summary)}, *map(asdict, refused)):
            file.write(encoded_row(line) + b"\n")
    return path


def read_summary(dataset_dir: Path, dataset: str) -> ImportSummary | None:
    """The counts of a dataset's import; None for one that was not imported. Raises: DataError when damaged."""
    path = record_path(dataset_dir, dataset)
    try:
        with path.open(encoding="utf-8") as file:
            return ImportSummary(**json.loads(file.readline())["import"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path, error) from None


def read_refused(dataset_dir: Path, dataset: str) -> list[RefusedRow]:
    """Every row that the import of a dataset refused, repaired ones too. Raises: DataError when damaged."""
    path = record_path(dataset_dir, dataset)
    try:
        with path.open(encoding="utf-8") as file:
            return [RefusedRow(**json.loads(line)) for number, line in enumerate(file) if number]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path, error) from None


def carry_over(
    dataset_dir: Path,
    old: str,
    new: Path,
    places: Iterable[Place | None],
    repaired: Iterable[int],
    unreadable: Iterable[RefusedRow],
    read: int,
) -> None:
    """Give the file of a new version the record of the old one, with some of its refused rows repaired.

    `places` are those of the new file's rows in the imported one, without the repaired rows, which are its last.
    `unreadable` are rows of the old dataset itself that the new one cannot hold; `read` is how many rows it has, for a
    dataset that has no record yet. Raises: DataError when damaged.
    """
    repaired, unreadable = list(repaired), list(unreadable)
    summary = read_summary(dataset_dir, old)
    if summary is None:
        if not unreadable:
            return
        summary = ImportSummary(unreadable[0].file, "", "", {}, read, 0)
    refused = read_refused(dataset_dir, old)
    mended = [Place(row.file, row.row, row.line) for row in (refused[number] for number in repaired)]
    rows = [replace(row, repaired=row.repaired or number in repaired) for number, row in enumerate(refused)]
    rows += unreadable
    counted = replace(
        summary,
        refused=len(rows),
        repaired=sum(row.repaired for row in rows),
        dataset_sha256=sha256_file(new),
        places=runs_of((*places, *mended)),
    )
    write_record(dataset_dir, new.stem, counted, rows)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        "The record of the import is damaged: {error}.", path, "Move the file away, or import again.", error=str(error)
    )
