"""Import a file as people have it: detect encoding and columns, and write a dataset file with its registry entry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError, close_matches, did_you_mean
from sartor.base.files import atomic_write
from sartor.base.i18n import Text, tr
from sartor.base.locks import REGISTRY_WAIT_S, file_lock
from sartor.base.types import Demonstration, Ledger, Message, Origin, RawRow, Skipped
from sartor.data.csv_roundtrip import has_provenance, unescape_cells, with_provenance
from sartor.data.dataset_info import REGISTRY, parse_entry, write_entry
from sartor.data.files import open_data_file, raw_rows
from sartor.data.formats import FORMATS, WritableFormat
from sartor.data.load import Loaded, load_spec
from sartor.data.read_rows import available_columns, columns_of
from sartor.data.validate import Notes, RowRejected, optional_text, parse_tools, required_text

QUESTION_NAMES = (
    "question",
    "questions",
    "问题",
    "提问",
    "问",
    "q",
    "prompt",
    "instruction",
    "query",
    "input",
    "user",
    "human",
    "ask",
    "问句",
    "指令",
    "题目",
)
ANSWER_NAMES = (
    "answer",
    "answers",
    "答案",
    "回答",
    "答",
    "a",
    "response",
    "output",
    "completion",
    "reply",
    "assistant",
    "gpt",
    "target",
    "答复",
    "回复",
    "输出",
)
FIELDS = ("question", "answer", "input", "system", "tools")
NAME = re.compile(r"[\w.+-]+")
"""What the name of a dataset consists of; it does not start with a dot."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to read the file and what to write; what is not given is detected."""

    encoding: str | None = None
    delimiter: str | None = None
    """One character between cells."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field (one of `FIELDS`) → column."""
    format: str = "sharegpt"
    """The format to write, one that is a `WritableFormat`."""


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
    """The keys of the registry entry for a file that is in a known format already; None: questions and answers."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import wrote."""

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
    if not path.is_file():
        folder = path.absolute().parent
        near = close_matches(path.name, [p.name for p in folder.glob("*")] if folder.is_dir() else [], 1)
        hint = tr("Did you mean {name}?", name=near[0]) if near else tr("Check the path.")
        raise DataError("File not found.", path, hint)
    with open_data_file(path, options.encoding, options.delimiter) as file:
        count, sample, found = _sample_rows(file.rows())
        names = file.header() or found
        delimiter, encoding, how = file.detect_delimiter(), file.encoding or "", file.how
    if not count:
        raise DataError("The file has no rows.", path, "It needs at least one question and answer.")
    given = bool(options.columns or options.delimiter)
    entry = None if given else known_format(names)
    mapping = {} if entry else choose_columns(names, options.columns, str(path))
    return FileInspection(path, encoding, how, delimiter, tuple(names), mapping, count, tuple(sample), entry)


def _sample_rows(rows: Iterable[RawRow]) -> tuple[int, list[Mapping[str, Any]], list[str]]:
    """The number of rows, the objects among the first three, and every column in order of first appearance."""
    count = 0
    sample: list[Mapping[str, Any]] = []
    names: dict[str, None] = {}
    for raw in rows:
        count += 1
        if isinstance(raw.value, dict):
            if count <= 3:
                sample.append(raw.value)
            names |= dict.fromkeys(columns_of([raw.value]))
    return count, sample, list(names)


def known_format(names: list[str]) -> Mapping[str, Any] | None:
    """The keys of the registry entry for a file whose columns show its format; None for any other file."""
    return next((entry for format in FORMATS.all() if (entry := format.recognize(names)) is not None), None)


def choose_columns(names: list[str], given: Mapping[str, str], where: str) -> dict[str, str]:
    """Field → column, by well-known names or as the only two columns left. Raises: DataError listing the columns."""
    for name, column in given.items():
        if name not in FIELDS:
            raise DataError("Unknown field {field!r}.", where, did_you_mean(name, FIELDS), field=name)
        if column not in names:
            raise DataError("Unknown column {column!r}.", where, available_columns(column, names), column=column)
    mapping = dict(given)
    lower = {name.strip().lower(): name for name in names if name not in given.values()}
    for name, known in (("question", QUESTION_NAMES), ("answer", ANSWER_NAMES)):
        if name not in mapping:
            found = next((lower[candidate] for candidate in known if candidate in lower), None)
            if found:
                mapping[name] = found
                lower.pop(found.strip().lower(), None)
    rest = [
        name
        for name in names
        if name not in mapping.values() and not re.fullmatch(r"column \d+|id|index|序号|编号", name)
    ]
    missing = [name for name in ("question", "answer") if name not in mapping]
    if len(missing) == 2 and len(rest) == 2:
        mapping |= {"question": rest[0], "answer": rest[1]}
    elif len(missing) == 1 and len(rest) == 1:
        mapping[missing[0]] = rest[0]
    elif missing:
        raise DataError(
            "Could not determine which column is the {field}.",
            where,
            "Pass --question COLUMN --answer COLUMN. Available: {available}.",
            field=missing[0],
            available=", ".join(map(repr, names)),
        )
    return mapping


def import_file(path: Path, name: str, dataset_dir: Path, options: ImportOptions | None = None) -> ImportResult:
    """Write `<name>.json` and its entry in dataset_info.json, both atomically; skipped rows are in the ledger.

    Raises: DataError as `inspect_file` does, for a bad name, an unknown format, or when no row can be used.
    """
    options = options or ImportOptions()
    if not NAME.fullmatch(name) or name.startswith("."):
        raise DataError("Invalid dataset name {name!r}.", "--name", "Use letters, digits, _ - . and +.", name=name)
    written = _writable_format(options.format)
    inspection = inspect_file(path, options)
    target = dataset_dir / f"{name}.json"
    if target.exists() and target.resolve() == path.resolve():
        raise DataError("The dataset would overwrite the imported file.", path, "Choose another --name.")
    rows, cells, skipped, notes = _read_rows(inspection, name)
    entry: Mapping[str, Any] = {"file_name": target.name}
    if inspection.entry is not None:
        entry = {**entry, **inspection.entry}
    else:
        optional = {field: field for field in ("system", "tools") if field in inspection.mapping}
        entry = {**entry, "formatting": written.name, "columns": {**written.written_columns(), **optional}}
        rows = [written.to_row(example) for example in rows]
        rows = with_provenance(rows, cells) if has_provenance(inspection.columns) else rows
    if not rows:
        first = skipped[0]
        hint = tr("Row {row}: {reason}", row=first.origin.row, reason=first.reason)
        raise DataError("No row can be used.", path, hint)
    spec = parse_entry(name, entry, dataset_dir / REGISTRY)
    with file_lock(target, REGISTRY_WAIT_S):
        atomic_write(target, "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")
        loaded = load_spec(spec)
        write_entry(dataset_dir, name, entry)
    joined = max(len(cells) - len(rows), 0)
    ledger = Ledger(
        inspection.rows - joined,
        training=len(loaded.examples),
        skipped=(*skipped, *loaded.ledger.skipped),
        notes=(*notes.all(), *loaded.ledger.notes),
    )
    return ImportResult(inspection, Loaded(loaded.examples, ledger, spec, loaded.files), target, entry)


def _writable_format(name: str) -> WritableFormat:
    writable = {format.name: format for format in FORMATS.all() if isinstance(format, WritableFormat)}
    if name not in writable:
        raise DataError("Cannot write the format {name!r}.", "--format", did_you_mean(name, writable), name=name)
    return writable[name]


def _read_rows(
    inspection: FileInspection, name: str
) -> tuple[list[Any], list[Mapping[str, Any]], list[Skipped], Notes]:
    """The usable rows, the cells of those that were parsed, the skipped rows, and notes.

    Rows of questions and answers are parsed to `Demonstration`; rows in a known format are kept as they are.
    """
    notes = Notes()
    rows: list[Any] = []
    cells: list[Mapping[str, Any]] = []
    generated = has_provenance(inspection.columns)
    skipped: list[Skipped] = []
    for raw in raw_rows(inspection.path, inspection.encoding or None, inspection.delimiter):
        origin = Origin(name, inspection.path.name, raw.row, raw.line)
        if raw.fault is not None:
            skipped.append(Skipped(origin, "row-broken", None, {"reason": raw.fault}))
        elif not isinstance(raw.value, dict):
            skipped.append(Skipped(origin, "row-not-object", None, {"kind": type(raw.value).__name__}))
        elif inspection.entry is not None:
            rows.append(raw.value)
        else:
            try:
                value = unescape_cells(raw.value) if generated else raw.value
                rows.append(_pair(value, inspection.mapping, origin, notes))
                cells.append(value)
            except RowRejected as reason:
                skipped.append(Skipped(origin, reason.code, reason.column, reason.params))
    return rows, cells, skipped, notes


def _pair(row: Mapping[str, Any], mapping: Mapping[str, str], origin: Origin, notes: Notes) -> Demonstration:
    question = required_text(row, mapping["question"], "prompt-missing", notes)
    if more := optional_text(row, mapping.get("input"), notes):
        question = f"{question}\n{more}"
    answer = required_text(row, mapping["answer"], "answer-missing", notes)
    system = optional_text(row, mapping.get("system"), notes)
    tools = parse_tools(row.get(mapping["tools"]), mapping["tools"], notes) if "tools" in mapping else ()
    head = (Message("system", system),) if system else ()
    return Demonstration((*head, Message("user", question), Message("assistant", answer)), origin, tools)
