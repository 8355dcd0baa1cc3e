"""Import a file as people have it: detect encoding and columns, and write a dataset file with its registry entry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError, close_matches, did_you_mean
from sartor.base.files import atomic_write, sha256_file
from sartor.base.i18n import Text, tr
from sartor.base.locks import REGISTRY_WAIT_S, file_lock
from sartor.base.reasons import reason_of
from sartor.base.types import (
    Demonstration,
    Document,
    Example,
    Feedback,
    Ledger,
    Message,
    Origin,
    Place,
    Preference,
    RawRow,
    Skipped,
)
from sartor.data.column_names import choose_columns
from sartor.data.csv_roundtrip import has_provenance, unescape_cells, with_provenance
from sartor.data.dataset_info import REGISTRY, parse_entry, write_entry
from sartor.data.existing_dataset import Existing, make_room
from sartor.data.files import open_data_file, raw_rows
from sartor.data.formats import FORMATS, WritableFormat
from sartor.data.import_record import ImportSummary, RefusedRow, runs_of, write_record
from sartor.data.json_rows import rows_text
from sartor.data.load import Loaded, load_spec
from sartor.data.read_rows import columns_of
from sartor.data.sources import suffixes
from sartor.data.validate import Notes, RowRejected, kind_of, optional_text, parse_kto_tag, parse_tools, required_text

NAME = re.compile(r"[\w.+-]+")
"""What the name of a dataset consists of; it does not start with a dot."""
RESERVED = ("conversations", "messages", "instruction", "output", "chosen", "rejected", "kto_tag", "system", "tools")
"""Names that another column does not keep in a dataset that is written: it would be read as that field."""
MAX_LISTED = 8


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to read the file and what to write; what is not given is detected."""

    encoding: str | None = None
    delimiter: str | None = None
    """One character between cells."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field (one of `column_names.FIELDS`) → column."""
    format: str = "sharegpt"
    """The format to write, one that is a `WritableFormat`."""
    existing: Existing = "refuse"
    """What to do when there is a dataset of this name."""
    sheet: str | None = None
    """The sheet of a spreadsheet; None: all."""
    inside: Path | None = None
    """A folder that the file must be in, after following links, when it is opened."""


@dataclass(frozen=True, slots=True)
class FileInspection:
    """How a file is read: encoding and how it was found, delimiter, columns, and which column is which field."""

    path: Path
    encoding: str
    """Empty for a file that is not text."""
    how: Text
    delimiter: str | None
    columns: tuple[str, ...]
    mapping: Mapping[str, str]
    """Field → column; empty when `entry` is set."""
    rows: int
    sample: tuple[Mapping[str, Any], ...]
    """Up to three of the first rows."""
    entry: Mapping[str, Any] | None = None
    """The keys of the registry entry for a file that is in a known format already; None: a table."""
    sheet: str | None = None
    inside: Path | None = None
    """The folder that the file must be in when it is opened again."""

    @property
    def stage(self) -> str:
        """The training stage that reads such rows."""
        columns = (self.entry or {}).get("columns", {})
        if "text" in self.mapping:
            return "pt"
        if "chosen" in self.mapping or (self.entry or {}).get("ranking"):
            return "dpo"
        return "kto" if "kto_tag" in {*self.mapping, *columns} else "sft"


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import wrote."""

    name: str
    """The dataset's name; a new version has another than was asked for."""
    inspection: FileInspection
    loaded: Loaded
    dataset_file: Path
    entry: Mapping[str, Any]


def inspect_file(path: Path, options: ImportOptions | None = None) -> FileInspection:
    """Detect encoding, delimiter and columns; `options` take precedence.

    Raises: DataError for a missing or empty file, an unknown column (naming the nearest), or when the columns of
    question and answer cannot be determined.
    """
    options = options or ImportOptions()
    if path.is_dir():
        raise _folder(path)
    if not path.is_file():
        folder = path.absolute().parent
        near = close_matches(path.name, [p.name for p in folder.glob("*")] if folder.is_dir() else [], 1)
        hint = tr("Did you mean {name}?", name=near[0]) if near else tr("Check the path.")
        raise DataError("File not found.", path, hint)
    with open_data_file(path, options.encoding, options.delimiter, options.sheet, inside=options.inside) as file:
        count, sample, found, fault = _sample_rows(file.rows())
        names = file.header() or found
        delimiter, encoding, how = file.detect_delimiter(), file.encoding or "", file.how
    if not count:
        raise DataError("The file has no rows.", path, "It needs at least one question and answer.")
    if not names and fault:
        raise DataError("No row can be used.", path, fault)
    given = bool(options.columns or options.delimiter)
    entry = None if given else known_format(names, sample)
    mapping = {} if entry else choose_columns(names, options.columns, str(path), sample)
    return FileInspection(
        path,
        encoding,
        how,
        delimiter,
        tuple(names),
        mapping,
        count,
        tuple(sample),
        entry,
        options.sheet,
        options.inside,
    )


def _sample_rows(rows: Iterable[RawRow]) -> tuple[int, list[Mapping[str, Any]], list[str], Text | None]:
    """The number of rows, the objects among the first three, every column in order of first appearance, and what is
    wrong with the first row that is broken or no object.
    """
    count, fault = 0, None
    sample: list[Mapping[str, Any]] = []
    names: dict[str, None] = {}
    for raw in rows:
        count += 1
        if fault is None and (raw.fault is not None or not isinstance(raw.value, dict)):
            fault = tr("Row {row}: {reason}", row=raw.row, reason=_fault(raw))
        if isinstance(raw.value, dict):
            if count <= 3:
                sample.append(raw.value)
            names |= dict.fromkeys(columns_of([raw.value]))
    return count, sample, list(names), fault


def _fault(raw: RawRow) -> Text:
    """Why the row has no columns."""
    if raw.fault is not None:
        return reason_of("row-broken", {"reason": raw.fault})
    return reason_of("row-not-object", {"kind": kind_of(raw.value)})


def known_format(names: list[str], sample: Sequence[Mapping[str, Any]] = ()) -> Mapping[str, Any] | None:
    """The keys of the registry entry for a file whose columns show its format; None for any other file.

    A column named `label` is a rating only if the sample has true or false there.
    """
    found = next((entry for format in FORMATS.all() if (entry := format.recognize(names)) is not None), None)
    columns = (found or {}).get("columns", {})
    if found and columns.get("kto_tag") == "label" and not all(isinstance(row.get("label"), bool) for row in sample):
        return {**found, "columns": {name: column for name, column in columns.items() if name != "kto_tag"}}
    return found


def _folder(path: Path) -> DataError:
    """What can be imported from a folder: its files, or the datasets that are registered in it."""
    if (path / REGISTRY).is_file():
        return DataError(
            "This is a folder with datasets already.",
            path,
            "Use them: `sartor check NAME --dataset-dir {folder}`.",
            folder=path,
        )
    readable = sorted(p.name for p in path.iterdir() if p.is_file() and p.suffix.lower() in suffixes())
    if not readable:
        return DataError(
            "This is a folder, and no file in it can be imported.",
            path,
            "Pass one file: {suffixes}.",
            suffixes=", ".join(suffixes()),
        )
    listed = ", ".join(readable[:MAX_LISTED]) + (" …" if len(readable) > MAX_LISTED else "")
    return DataError("This is a folder.", path, "Import one of its files: {files}.", files=listed)


def import_file(path: Path, name: str, dataset_dir: Path, options: ImportOptions | None = None) -> ImportResult:
    """Write `<name>.json`, its entry in dataset_info.json, and the record of what was read, kept and refused.

    An existing dataset or file of this name is left alone unless `options.existing` says otherwise; importing the same
    rows again changes nothing. Raises: DataError as `inspect_file` does, for a bad name, one that is taken (code
    `dataset-exists`), an unknown format, or when no row can be used.
    """
    options = options or ImportOptions()
    check_name(name)
    written = _writable_format(options.format)
    inspection = inspect_file(path, options)
    if (dataset_dir / f"{name}.json").exists() and (dataset_dir / f"{name}.json").resolve() == path.resolve():
        raise DataError("The dataset would overwrite the imported file.", path, "Choose another --name.")
    read = _read_rows(inspection, name)
    if not read.rows:
        hint = tr("Row {row}: {reason}", row=read.refused[0].row, reason=read.refused[0].reason)
        raise DataError("No row can be used.", path, hint)
    rows, keys = _written_rows(read, inspection, written)
    locks = (dataset_dir / f"{name}.json", dataset_dir / f"{name}.versions")
    with file_lock(locks[0], REGISTRY_WAIT_S), file_lock(locks[1], REGISTRY_WAIT_S):
        name, loaded, entry = _write(name, dataset_dir, inspection, (rows, keys, read), options.existing)
    joined = max(len(read.rows) - len(rows), 0)
    ledger = Ledger(
        inspection.rows - joined,
        training=len(loaded.examples),
        skipped=(*read.skipped, *loaded.ledger.skipped),
        notes=(*read.notes.all(), *(note for note in loaded.ledger.notes if note.code != "refused-at-import")),
    )
    return ImportResult(name, inspection, replace(loaded, ledger=ledger), dataset_dir / f"{name}.json", entry)


def _write(
    name: str,
    dataset_dir: Path,
    inspection: FileInspection,
    made: tuple[Sequence[Any], dict[str, Any], _ReadRows],
    existing: Existing,
) -> tuple[str, Loaded, dict[str, Any]]:
    """Write rows, record and entry, or nothing. Returns the name they have, the dataset as loaded, and its entry."""
    rows, keys, read = made
    text = rows_text(rows)
    name, retired = make_room(name, dataset_dir, {"file_name": f"{name}.json", **keys}, text, existing)
    target, entry = dataset_dir / f"{name}.json", {"file_name": f"{name}.json", **keys}
    spec = parse_entry(name, entry, dataset_dir / REGISTRY)
    path, mapping = inspection.path, dict(inspection.mapping)
    summary = ImportSummary(
        path.name, sha256_file(path), inspection.encoding, mapping, inspection.rows, len(read.refused)
    )
    try:
        atomic_write(target, text)
        if len(rows) == len(read.places):  # else turns were joined, and a row is several of the file
            summary = replace(summary, dataset_sha256=sha256_file(target), places=runs_of(read.places))
        write_record(dataset_dir, name, summary, read.refused)
        loaded = load_spec(spec, stage=inspection.stage)
    except BaseException:
        retired.restore()
        raise
    write_entry(dataset_dir, name, entry)
    return name, loaded, entry


def check_name(name: str) -> None:
    """Raises: DataError for what cannot be the name of a dataset."""
    if not NAME.fullmatch(name) or name.startswith("."):
        raise DataError("Invalid dataset name {name!r}.", "--name", "Use letters, digits, _ - . and +.", name=name)


def _writable_format(name: str) -> WritableFormat:
    writable = {format.name: format for format in FORMATS.all() if isinstance(format, WritableFormat)}
    if name not in writable:
        raise DataError("Cannot write the format {name!r}.", "--format", did_you_mean(name, writable), name=name)
    return writable[name]


@dataclass(slots=True)
class _ReadRows:
    """The rows of a file: those that can be used, as they are and as examples, and the others."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    """Empty for a file in a known format, whose rows are kept as they are."""
    places: list[Place] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    refused: list[RefusedRow] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)


def _read_rows(inspection: FileInspection, name: str) -> _ReadRows:
    read = _ReadRows()
    generated = has_provenance(inspection.columns)
    found = inspection
    for raw in raw_rows(found.path, found.encoding or None, found.delimiter, found.sheet, found.inside):
        origin = Origin(name, inspection.path.name, raw.row, raw.line)
        try:
            if raw.fault is not None:
                raise RowRejected("row-broken", None, reason=raw.fault)
            if not isinstance(raw.value, dict):
                raise RowRejected("row-not-object", None, kind=kind_of(raw.value))
            value = unescape_cells(raw.value) if generated else raw.value
            if inspection.entry is None:
                read.examples.append(example_of(value, inspection.mapping, origin, read.notes))
            read.rows.append(value)
            read.places.append(Place(origin.file, raw.row, raw.line))
        except RowRejected as reason:
            skipped = Skipped(origin, reason.code, reason.column, reason.params)
            read.skipped.append(skipped)
            read.refused.append(RefusedRow.of(skipped, raw))
    return read


def _written_rows(
    read: _ReadRows, inspection: FileInspection, format: WritableFormat
) -> tuple[Sequence[Mapping[str, Any]], dict[str, Any]]:
    """The rows of the dataset with all columns of the file, and the keys of its registry entry."""
    if inspection.entry is not None:
        return read.rows, dict(inspection.entry)
    mapping = inspection.mapping
    made = [_as_row(example, format) for example in read.examples]
    if has_provenance(inspection.columns):
        made = with_provenance(made, read.rows)
    else:
        made = [_with_others(row, given, mapping) for row, given in zip(made, read.rows, strict=True)]
    if "text" in mapping:
        return made, {"formatting": "alpaca", "columns": {"prompt": "text"}}
    optional = {field: field for field in ("system", "tools", "kto_tag") if field in mapping}
    preference = "chosen" in mapping
    columns = {**format.written_columns(preference), **optional}
    return made, {**({"ranking": True} if preference else {}), "formatting": format.name, "columns": columns}


def dataset_row(row: Any, mapping: Mapping[str, str], formatting: str, origin: Origin) -> Any:
    """A row of an imported file as the row of the dataset that the import makes of it. Raises: RowRejected."""
    if not isinstance(row, Mapping):
        raise RowRejected("row-not-object", None, kind=kind_of(row))
    if not mapping:  # the file was in a known format
        return row
    example = example_of(row, mapping, origin, Notes())
    return _with_others(_as_row(example, _writable_format(formatting)), row, mapping)


def _as_row(example: Example, format: WritableFormat) -> dict[str, Any]:
    return {"text": example.text} if isinstance(example, Document) else format.to_row(example)


def _with_others(made: Mapping[str, Any], row: Mapping[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """A row with the columns that are no field: `split --by` needs them; one whose name is taken gets another."""
    used = set(mapping.values())
    found = dict(made)
    for name, value in row.items():
        if name not in used:
            while name in found or name in RESERVED:
                name += "_"
            found[name] = value
    return found


def example_of(row: Mapping[str, Any], mapping: Mapping[str, str], origin: Origin, notes: Notes) -> Example:
    """A row of a table as an example, by what its columns are. Raises: RowRejected."""
    if "text" in mapping:
        return Document(required_text(row, mapping["text"], "prompt-missing", notes), origin)
    question = required_text(row, mapping["question"], "prompt-missing", notes)
    if more := optional_text(row, mapping.get("input"), notes):
        question = f"{question}\n{more}"
    system = optional_text(row, mapping.get("system"), notes)
    tools = parse_tools(row.get(mapping["tools"]), mapping["tools"], notes) if "tools" in mapping else ()
    turns = (*((Message("system", system),) if system else ()), Message("user", question))
    if "chosen" in mapping:
        chosen, rejected = (_answer(row, mapping[name], notes) for name in ("chosen", "rejected"))
        if chosen == rejected:
            raise RowRejected("same-answers", mapping["rejected"])
        return Preference(turns, chosen, rejected, origin, tools)
    answer = _answer(row, mapping["answer"], notes)
    if "kto_tag" in mapping:
        good = parse_kto_tag(row.get(mapping["kto_tag"]), mapping["kto_tag"])
        return Feedback((*turns, answer), good, origin, tools)
    return Demonstration((*turns, answer), origin, tools)


def _answer(row: Mapping[str, Any], column: str, notes: Notes) -> Message:
    return Message("assistant", required_text(row, column, "answer-missing", notes))
