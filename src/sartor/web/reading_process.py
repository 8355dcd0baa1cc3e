"""The process that reads files and datasets for the page: one call after the other, as lines of JSON."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from sartor import api
from sartor.base.config import RunConfig
from sartor.base.errors import SartorError
from sartor.base.files import system_error
from sartor.base.limited_worker import limit_resources
from sartor.checks.lint_input import length_of
from sartor.data.existing_dataset import Existing
from sartor.data.files import raw_rows, sheet_names
from sartor.data.import_file import FileInspection, ImportOptions, import_file, inspect_file
from sartor.data.import_record import RefusedRow
from sartor.data.json_stream import parse_json
from sartor.prompt.label_view import LabelView, label_view
from sartor.web import wire
from sartor.web.cache import Cache, find, turns
from sartor.web.generated_pairs import estimate
from sartor.web.shown import (
    Checked,
    Group,
    ImportOutcome,
    JsonText,
    ReadingChoices,
    ShownDataset,
    ShownRow,
    by_code,
)
from sartor.web.workspace import Workspace

MAX_PER_CODE = 20
MAX_TEXT = 400
"""Characters of a turn in the list of rows."""
FIRST_ROWS = 50


class Readings:
    """The calls that the page can make; every path is resolved in the workspace here."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.cache = workspace, Cache(workspace)

    def sheets(self, file: str) -> tuple[str, ...]:
        return sheet_names(self.workspace.resolve_inside(file), self.workspace.folder)

    def inspect(self, file: str, reading: ReadingChoices) -> FileInspection:
        return inspect_file(self.workspace.resolve_inside(file), self._options(reading))

    def first_rows(self, file: str, reading: ReadingChoices) -> list[Mapping[str, Any]]:
        """The first rows of a file that cannot be imported as it is, as far as they can be read; the page shows why."""
        found: list[Mapping[str, Any]] = []
        with suppress(SartorError):
            path, root = self.workspace.resolve_inside(file), self.workspace.folder
            rows = raw_rows(path, reading.encoding, reading.delimiter, reading.sheet, root)
            found.extend(raw.value for raw in islice(rows, FIRST_ROWS) if isinstance(raw.value, dict))
        return found

    def import_file(self, file: str, name: str, reading: ReadingChoices, existing: Existing) -> ImportOutcome:
        options = replace(self._options(reading), existing=existing)
        done = import_file(self.workspace.resolve_inside(file), name, self.workspace.data, options)
        ledger = done.loaded.ledger
        return ImportOutcome(done.name, ledger.read, ledger.training, len(ledger.skipped), done.loaded.imported)

    def _options(self, reading: ReadingChoices) -> ImportOptions:
        columns, root = reading.columns, self.workspace.folder
        return ImportOptions(reading.encoding, reading.delimiter, columns, sheet=reading.sheet, inside=root)

    def refused(self, name: str) -> list[RefusedRow]:
        return api.read_refused(name, self.workspace.data)

    def dataset(self, name: str) -> ShownDataset:
        loaded = self.cache.dataset(name)
        encodings = tuple(dict.fromkeys(str(file.encoding or "–") for file in loaded.files))
        ledger = replace(loaded.ledger, skipped=())
        return ShownDataset(
            name, ledger, by_code(loaded.ledger.skipped), encodings, len(loaded.examples), loaded.imported
        )

    def rows(self, name: str, positions: Sequence[int]) -> list[ShownRow]:
        examples = self.cache.dataset(name).examples
        return [
            ShownRow(
                examples[n].origin,
                tuple((role, text[:MAX_TEXT]) for role, text in turns(examples[n])),
            )
            for n in positions
            if 0 <= n < len(examples)
        ]

    def find(self, name: str, query: str) -> list[int]:
        return find(self.cache.dataset(name), query)

    def position(self, name: str, row: int) -> int:
        """The position of the usable row with this number, else of the first."""
        examples = self.cache.dataset(name).examples
        return next((n for n, example in enumerate(examples) if example.origin.row == row), 0)

    def value(self, name: str, row_id: str) -> Any:
        """A row as its file has it."""
        rows = api.read_rows(name, self.workspace.data)
        return next((value for origin, value in rows if origin.id == row_id), None)

    def labels(self, name: str, position: int, model: str, template: str | None) -> LabelView:
        return label_view(self.cache.dataset(name).examples[position], self.cache.encoder(model, template))

    def check(self, name: str, model: str, cutoff: int) -> Checked:
        encoder = self.cache.encoder(model, None)  # refuses a model outside the folder
        settings = {"model_name_or_path": model, "dataset": name, "cutoff_len": cutoff}
        config = RunConfig.from_dict({**settings, "dataset_dir": str(self.workspace.data)})
        checked = api.check(name, config).result
        examples = self.cache.dataset(name).examples
        encoded = encoder.encode_all(examples)
        longer = [int(str(s.params["tokens"])) for s in encoded.skipped if "tokens" in s.params]
        groups: dict[str, list[Any]] = {}
        for finding in checked.findings:
            groups.setdefault(finding.code, []).append(finding)
        shown = tuple(Group(code, len(all_), tuple(all_[:MAX_PER_CODE])) for code, all_ in groups.items())
        compared = [f for group in shown for f in group.first if f.origin is not None and f.other is not None]
        wanted = {origin.id for f in compared for origin in (f.origin, f.other) if origin is not None}
        texts = {
            example.origin.id: "\n".join(words for _, words in turns(example))
            for example in examples
            if example.origin.id in wanted
        }
        return Checked(checked.rows, shown, texts, (*(length_of(row) for row in encoded.encoded), *longer))

    def save_version(self, name: str, changes: Mapping[str, Any], repaired: Mapping[int, Any] | None = None) -> str:
        rows = {
            place: parse_json(row.text, name) if isinstance(row, JsonText) else row
            for place, row in (repaired or {}).items()
        }
        return api.save_version(name, self.workspace.data, changes=changes, repaired=rows)

    def add_row(self, name: str, row: Any) -> None:
        api.add_row(name, self.workspace.data, row)

    def estimate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return estimate(arguments)


CALLS = frozenset(name for name in vars(Readings) if not name.startswith("_"))


def answer(readings: Readings, call: Any) -> Any:
    """The result of one call, or the error that it ended with."""
    name, arguments = call["call"], call["arguments"]
    if name not in CALLS:
        return SartorError("Unknown call.", str(name))
    work: Callable[..., Any] = getattr(readings, name)
    try:
        return work(**arguments)
    except SartorError as error:
        return error
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:
            return system_error(error)
        return SartorError("There is not enough memory to read this.", "", "Use the command line.", code="file-budget")
    except Exception as error:  # a page must outlive whatever a file does
        return SartorError(f"{type(error).__name__}: {error}"[:500])


def main(folder: str, memory_bytes: str, *model_dirs: str) -> None:
    """Answer the calls on standard input until it ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not an answer
    limit_resources(int(memory_bytes), None)
    readings = Readings(Workspace(Path(folder), tuple(map(Path, model_dirs))))
    with suppress(BrokenPipeError):  # the page has ended
        for line in sys.stdin.buffer:
            out.write(wire.dumps(answer(readings, wire.loads(line))))
            out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
