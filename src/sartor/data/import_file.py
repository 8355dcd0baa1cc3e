"""From a file as people have it to a dataset file and its entry: encoding and columns are found and shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError, close_matches
from sartor.base.files import atomic_write
from sartor.base.types import Demonstration, Ledger, Message, Origin, RawRow, Skipped
from sartor.data.csv_roundtrip import has_provenance, with_provenance, without_provenance
from sartor.data.dataset_info import parse_entry, write_entry
from sartor.data.files import open_data_file
from sartor.data.load import Loaded, columns_of, load_spec, raw_rows
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


@dataclass(frozen=True, slots=True)
class FileInspection:
    """How a file is read: encoding and how it was found, delimiter, columns, and which column is which field."""

    path: Path
    encoding: str
    how: str
    delimiter: str | None
    columns: tuple[str, ...]
    mapping: Mapping[str, str]
    rows: int
    sample: tuple[Mapping[str, Any], ...]
    entry: Mapping[str, Any] | None = None
    """The registry entry of a file that is alpaca or sharegpt already; None: rows are questions and answers."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import made."""

    inspection: FileInspection
    loaded: Loaded
    dataset_file: Path
    entry: Mapping[str, Any]


def inspect_file(
    path: Path,
    *,
    encoding: str | None = None,
    question: str | None = None,
    answer: str | None = None,
    columns: Mapping[str, str] | None = None,
    delimiter: str | None = None,
) -> FileInspection:
    """Find encoding, delimiter and columns; what is given wins.

    Raises: DataError for a missing or empty file, a column that is not there (naming the nearest), or when question
    and answer cannot be told.
    """
    if not path.is_file():
        there = [p.name for p in path.absolute().parent.glob("*")] if path.absolute().parent.is_dir() else []
        near = close_matches(path.name, there, 1)
        raise DataError("The file is not there.", str(path), f"Did you mean {near[0]}?" if near else "Check the path.")
    with open_data_file(path, encoding, delimiter) as file:
        count, sample, found = _sample_rows(file.rows())
        names = file.header() or found
        delimiter, read_as, how = file.detect_delimiter(), file.encoding, file.how
    if not count:
        raise DataError("The file holds no rows.", str(path), "It needs at least one question and answer.")
    given = dict(columns or {}) | {k: v for k, v in (("question", question), ("answer", answer)) if v}
    entry = None if given or delimiter else known_format(names)
    return FileInspection(
        path,
        read_as or "",
        how,
        delimiter,
        tuple(names),
        {} if entry else choose_columns(names, given, str(path)),
        count,
        tuple(sample),
        entry,
    )


def _sample_rows(rows: Iterable[RawRow]) -> tuple[int, list[Mapping[str, Any]], list[str]]:
    """How many rows, the objects among the first three, and every column in the order of its first appearance."""
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
    """The entry keys of a file whose columns say alpaca or sharegpt already, else None."""
    optional: dict[str, str] = {name: name for name in ("system", "tools") if name in names}
    if "conversations" in names:
        return {"formatting": "sharegpt", "columns": {"messages": "conversations", **optional}}
    if "messages" in names:
        return {"formatting": "openai", "columns": {"messages": "messages", **optional}}
    if "instruction" in names and "output" in names:
        if "history" in names:
            optional["history"] = "history"
        columns = {"prompt": "instruction", "query": "input", "response": "output", **optional}
        return {"formatting": "alpaca", "columns": columns} if optional else {"formatting": "alpaca"}
    return None


def choose_columns(names: list[str], given: Mapping[str, str], where: str) -> dict[str, str]:
    """field → column. Raises: DataError naming the columns there are."""
    listed = f"There are: {', '.join(repr(name) for name in names)}."
    for field, column in given.items():
        if field not in FIELDS:
            raise DataError(f"There is no field {field!r}.", where, f"Fields: {', '.join(FIELDS)}.")
        if column not in names:
            near = close_matches(column, names, 1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise DataError(f"There is no column {column!r}.", where, hint + listed)
    mapping = dict(given)
    lower = {name.strip().lower(): name for name in names if name not in given.values()}
    for field, known in (("question", QUESTION_NAMES), ("answer", ANSWER_NAMES)):
        if field not in mapping:
            found = next((lower[name] for name in known if name in lower), None)
            if found:
                mapping[field] = found
                lower.pop(found.strip().lower(), None)
    rest = [
        name
        for name in names
        if name not in mapping.values() and not re.fullmatch(r"column \d+|id|index|序号|编号", name)
    ]
    missing = [field for field in ("question", "answer") if field not in mapping]
    if len(missing) == 2 and len(rest) == 2:
        mapping |= {"question": rest[0], "answer": rest[1]}
    elif len(missing) == 1 and len(rest) == 1:
        mapping[missing[0]] = rest[0]
    elif missing:
        raise DataError(
            f"Which column is the {missing[0]} cannot be told.",
            where,
            f"Say it: --question COLUMN --answer COLUMN. {listed}",
        )
    return mapping


def import_file(
    path: Path,
    name: str,
    *,
    dataset_dir: Path,
    encoding: str | None = None,
    question: str | None = None,
    answer: str | None = None,
    columns: Mapping[str, str] | None = None,
    format: str = "sharegpt",
    delimiter: str | None = None,
) -> ImportResult:
    """Write `<name>.json` beside its entry in dataset_info.json, both atomically; skipped rows are in the ledger.

    Raises: DataError as `inspect_file` does, for a bad name, an unknown format, or when no row can be used.
    """
    if not NAME.fullmatch(name) or name.startswith("."):
        raise DataError(f"{name!r} is no name for a dataset.", "--name", "Use letters, digits, _ - . and +.")
    if format not in ("sharegpt", "alpaca"):
        raise DataError(f"There is no format {format!r} to write.", "--format", "Write sharegpt or alpaca.")
    understood = inspect_file(
        path, encoding=encoding, question=question, answer=answer, columns=columns, delimiter=delimiter
    )
    target = dataset_dir / f"{name}.json"
    if target.exists() and target.resolve() == path.resolve():
        raise DataError("The file would be written over itself.", str(path), "Choose another --name.")
    rows, cells, skipped, notes = _read_rows(understood, name)
    if understood.entry is not None:
        entry: Mapping[str, Any] = {"file_name": target.name, **understood.entry}
    else:
        rows, entry = [_to_row(row, format) for row in rows], _entry(target.name, format, understood.mapping)
        rows = with_provenance(rows, cells) if has_provenance(understood.columns) else rows
    if not rows:
        first = skipped[0] if skipped else None
        raise DataError("No row can be used.", str(path), f"Row {first.origin.row}: {first.reason}" if first else "")
    spec = parse_entry(name, entry, dataset_dir / "dataset_info.json")
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"
    atomic_write(target, text)
    loaded = load_spec(spec)
    write_entry(dataset_dir, name, entry)
    both = (*skipped, *loaded.ledger.skipped)
    joined = max(len(cells) - len(rows), 0)
    ledger = Ledger(
        understood.rows - joined,
        training=len(loaded.examples),
        skipped=both,
        notes=(*notes.all(), *loaded.ledger.notes),
    )
    return ImportResult(understood, Loaded(loaded.examples, ledger, spec, loaded.files), target, entry)


def _read_rows(
    understood: FileInspection, name: str
) -> tuple[list[Any], list[Mapping[str, Any]], list[Skipped], Notes]:
    """The rows that can be used (question–answer rows are parsed here, others as they stand), the cells of those that
    were parsed, and the skipped ones.
    """
    notes = Notes()
    rows: list[Any] = []
    cells: list[Mapping[str, Any]] = []
    ours = has_provenance(understood.columns)
    skipped: list[Skipped] = []
    for raw in raw_rows(understood.path, understood.encoding or None, understood.delimiter):
        origin = Origin(name, understood.path.name, raw.row, raw.line)
        if raw.fault is not None:
            skipped.append(Skipped(origin, "row-broken", None, {"reason": raw.fault}))
        elif not isinstance(raw.value, dict):
            skipped.append(Skipped(origin, "row-not-object", None, {"kind": type(raw.value).__name__}))
        elif understood.entry is not None:
            rows.append(raw.value)
        else:
            try:
                value = without_provenance(raw.value) if ours else raw.value
                rows.append(_pair(value, understood.mapping, origin, notes))
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


def _to_row(example: Demonstration, format: str) -> dict[str, Any]:
    texts = {message.role: message.text for message in example.messages}
    extra: dict[str, Any] = {"system": texts["system"]} if "system" in texts else {}
    if example.tools:
        extra["tools"] = json.dumps([dict(tool) for tool in example.tools], ensure_ascii=False)
    if format == "alpaca":
        return {"instruction": texts["user"], "input": "", "output": texts["assistant"], **extra}
    turns = [{"from": "human", "value": texts["user"]}, {"from": "gpt", "value": texts["assistant"]}]
    return {"conversations": turns, **extra}


def _entry(file_name: str, format: str, mapping: Mapping[str, str]) -> dict[str, Any]:
    optional = {name: name for name in ("system", "tools") if name in mapping}
    if format == "alpaca":
        columns = {"prompt": "instruction", "query": "input", "response": "output", **optional}
        return {"file_name": file_name, "formatting": "alpaca", "columns": columns}
    return {"file_name": file_name, "formatting": "sharegpt", "columns": {"messages": "conversations", **optional}}
