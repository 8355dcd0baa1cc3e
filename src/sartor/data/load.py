"""A dataset's files to examples and a ledger: every row becomes one or the other; no tokenizer here."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from sartor.base import registry
from sartor.base.errors import DataError, close_matches
from sartor.base.files import sha256_file
from sartor.base.permissions import Permissions
from sartor.base.process import gc_paused
from sartor.base.types import Example, Ledger, Origin, RawRow, Skipped
from sartor.data import files as files_module
from sartor.data import mixing, remote
from sartor.data.dataset_info import DatasetSpec, read_registry
from sartor.data.validate import Notes, RowRejected, is_missing

REQUIRED = ("prompt", "response", "messages", "chosen", "rejected", "kto_tag")
"""Fields whose column, when it is named and in no row, is an error; of the others it is a note."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that rows were read from."""

    path: Path
    sha256: str
    encoding: str | None
    rows: int | None
    """None where they were not all read."""
    how: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Examples in the order of the file, and where every row went."""

    examples: list[Example]
    ledger: Ledger
    spec: DatasetSpec
    files: tuple[SourceFile, ...] = ()

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return self.ledger.skipped


def load(
    name: str,
    dataset_dir: Path,
    *,
    stage: str = "sft",
    max_samples: int | None = None,
    seed: int = 42,
    encoding: str | None = None,
    permissions: Permissions | None = None,
) -> Loaded:
    """A registered dataset. `max_samples` draws a seeded sample, which the ledger counts as left out by request.

    Raises: DataError for an unknown name, a bad entry, a missing or damaged file, a missing column.
    """
    spec = read_registry(dataset_dir).spec(name)
    return load_spec(spec, stage=stage, max_samples=max_samples, seed=seed, encoding=encoding, permissions=permissions)


def load_many(
    names: Iterable[str],
    dataset_dir: Path,
    *,
    stage: str = "sft",
    max_samples: int | None = None,
    seed: int = 42,
    mix_strategy: str = "concat",
    interleave_probs: Sequence[float] = (),
    encoding: str | None = None,
    permissions: Permissions | None = None,
) -> Loaded:
    """Several datasets joined one after the other, or interleaved; what is used twice counts among the repeats.

    Raises: DataError as `load` does; ConfigError for probabilities that do not fit.
    """
    parts = [
        load(
            name,
            dataset_dir,
            stage=stage,
            max_samples=max_samples,
            seed=seed,
            encoding=encoding,
            permissions=permissions,
        )
        for name in names
    ]
    if len(parts) == 1:
        return parts[0]
    mixed = [example for part in parts for example in part.examples]
    ledger = sum((part.ledger for part in parts), Ledger())
    if mix_strategy != "concat":
        drawn = mixing.interleave([part.examples for part in parts], mix_strategy, interleave_probs, seed)
        mixed = [example for _, example in drawn]
        used = len({(part, example.origin.id) for part, example in drawn})
        unused = ledger.training - used
        ledger = replace(ledger, training=used, left_out=ledger.left_out + unused, repeats=len(mixed) - used)
    return Loaded(mixed, ledger, parts[0].spec, tuple(file for part in parts for file in part.files))


@gc_paused()
def load_spec(
    spec: DatasetSpec,
    *,
    stage: str = "sft",
    max_samples: int | None = None,
    seed: int = 42,
    encoding: str | None = None,
    permissions: Permissions | None = None,
) -> Loaded:
    """The same for an entry that is in hand already."""
    permissions = permissions or Permissions()
    notes = Notes()
    parsed: list[Example | Skipped] = []
    files: list[SourceFile] = []
    seen_columns: set[str] = set()
    reading = spec
    for part in _inputs(spec, permissions, encoding):
        before, digest = len(parsed), hashlib.sha256()
        reading = part.spec
        for raw in part.rows:
            if isinstance(raw.value, dict):
                seen_columns |= raw.value.keys()
            if part.path is None:
                digest.update(json.dumps(raw.value, ensure_ascii=False, default=str).encode("utf-8", "replace"))
            parsed.append(parse_row(raw, reading, _origin(spec, part.label, raw), stage, notes))
        sha256 = sha256_file(part.path) if part.path else digest.hexdigest()
        files.append(SourceFile(part.shown, sha256, part.encoding, len(parsed) - before, part.how))
    check_columns(reading, seen_columns, stage, notes)
    if not parsed:
        raise DataError("The dataset holds no rows.", str(files[0].path) if files else spec.name, "Check the file.")
    asked = parsed
    if all(file.encoding or file.how == files_module.NO_TEXT for file in files):  # hubs and scripts slice themselves
        asked = [parsed[n] for n in mixing.parse_slice(spec.split, len(parsed), f"dataset {spec.name!r}")]
    examples = [outcome for outcome in asked if not isinstance(outcome, Skipped)]
    skipped = tuple(outcome for outcome in asked if isinstance(outcome, Skipped))
    wanted = min(spec.num_samples or len(examples), max_samples or sys.maxsize)
    kept = mixing.sample(examples, wanted, seed)
    learned = min(len(kept), len(examples))
    ledger = Ledger(
        read=len(parsed),
        training=learned,
        left_out=len(parsed) - learned - len(skipped),
        repeats=len(kept) - learned,
        skipped=skipped,
        notes=notes.all(),
    )
    return Loaded(kept, ledger, spec, tuple(files))


@dataclass(frozen=True, slots=True)
class _Input:
    """Rows to read, and where they are from; `spec` as this file is read."""

    shown: Path
    label: str
    rows: Iterator[RawRow]
    spec: DatasetSpec
    path: Path | None = None
    encoding: str | None = None
    how: str = ""


def _inputs(spec: DatasetSpec, permissions: Permissions, encoding: str | None) -> Iterator[_Input]:
    """What an entry names, one at a time; each is open until the next is asked for."""
    place = remote.place_of(spec)
    kind = place.partition(":")[0] if place else "file"
    if place and kind in ("hf", "ms"):
        yield _Input(Path(place), Path(place).name, remote.hub_rows(spec), spec, how=place)
    elif place and kind == "script":
        rows = remote.script_rows(
            spec, allow_scripts=permissions.allow_scripts, allow_outside=permissions.allow_outside
        )
        yield _Input(Path(place), Path(place).name, rows, spec, how=place)
    elif place:
        with remote.cloud_file(spec, allow_network=permissions.allow_network) as path:
            yield from _file_inputs(spec, path, path.name, encoding, Path(place))
    else:
        for path in source_files(spec, permissions):
            yield from _file_inputs(spec, path, _label(spec, path), encoding)


def _file_inputs(
    spec: DatasetSpec, path: Path, label: str, encoding: str | None, shown: Path | None = None
) -> Iterator[_Input]:
    _verify(spec, path)
    with files_module.open_data_file(path, encoding or spec.encoding) as file:
        reading = _with_own_column(spec, file.source)
        yield _Input(shown or path, label, file.rows(), reading, path, file.encoding, file.how)


def read_raw(
    spec: DatasetSpec, *, encoding: str | None = None, permissions: Permissions | None = None
) -> Iterator[tuple[Origin, RawRow]]:
    """Every row of a dataset's files as it stands there, faulty ones too, one at a time.

    Raises: DataError as `load` does.
    """
    for part in _inputs(spec, permissions or Permissions(), encoding):
        for raw in part.rows:
            yield _origin(spec, part.label, raw), raw


def read_examples(
    spec: DatasetSpec, *, stage: str = "sft", encoding: str | None = None, permissions: Permissions | None = None
) -> Iterator[tuple[RawRow, Example | Skipped]]:
    """Every row of a dataset's files with what it is read as, one at a time. Raises: DataError as `load` does."""
    notes = Notes()
    for part in _inputs(spec, permissions or Permissions(), encoding):
        for raw in part.rows:
            yield raw, parse_row(raw, part.spec, _origin(spec, part.label, raw), stage, notes)


def _with_own_column(spec: DatasetSpec, source: ModuleType) -> DatasetSpec:
    """A file of one column of texts is read for what it is, unless the entry maps `prompt` itself."""
    if not (column := getattr(source, "COLUMN", None)) or "prompt" in spec.columns_given:
        return spec
    return replace(spec, columns={**spec.columns, "prompt": column})


def parse_row(raw: RawRow, spec: DatasetSpec, origin: Origin, stage: str, notes: Notes) -> Example | Skipped:
    """One raw row as an example, or the reason why it is none."""
    if raw.fault is not None:
        return Skipped(origin, "row-broken", None, {"reason": raw.fault})
    if not isinstance(raw.value, dict):
        return Skipped(origin, "row-not-object", None, {"kind": type(raw.value).__name__})
    try:
        example: Example = registry.plugin("sartor.data.formats", spec.formatting).parse(
            raw.value, spec, origin, stage, notes
        )
    except RowRejected as reason:
        return Skipped(origin, reason.code, reason.column, reason.params)
    return example


def raw_rows(path: Path, encoding: str | None = None, delimiter: str | None = None) -> Iterator[RawRow]:
    """The rows of a file, by the plug-in of its suffix. Raises: DataError as `files.opened` does."""
    with files_module.open_data_file(path, encoding, delimiter) as file:
        yield from file.rows()


def source_files(spec: DatasetSpec, permissions: Permissions) -> list[Path]:
    """The entry's files, inside its folder. Raises: DataError naming the nearest file when it is not there."""
    if not spec.file_name:
        raise DataError("Only local files are read so far.", f"dataset {spec.name!r}", "Give the entry a file_name.")
    name, folder = spec.file_name, spec.folder_path
    if "\0" in name:
        raise DataError("file_name holds a NUL character.", f"dataset {spec.name!r}", "Write a plain file name.")
    path = folder / name
    _require_reachable(path)
    _require_inside(path, folder, permissions)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        for inner in found:
            _require_inside(inner, folder, permissions)
        if not found:
            raise DataError("The folder is empty.", str(path), "Put data files into it.")
        return found
    if path.exists() and not path.is_file():
        raise DataError("This is no regular file.", str(path), "Copy what it gives into a file.")
    if not path.is_file():
        there = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        near = close_matches(name, there, 1)
        hint = f"Did you mean {near[0]}? Write it as file_name." if near else "Put it there, or mend file_name."
        raise DataError(f"The file {name!r} is not there.", str(path), hint)
    return [path]


def _require_reachable(path: Path) -> None:
    """Raises: DataError for links in a circle, a name beyond the system's length, a folder that is closed."""
    try:
        path.resolve().stat()
    except (FileNotFoundError, NotADirectoryError):
        return  # told later, with the nearest name
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "its links lead in a circle"
        raise DataError(f"The file cannot be reached: {reason}.", str(path)[:300], "Mend file_name.") from None


def _require_inside(path: Path, folder: Path, permissions: Permissions) -> None:
    """Where links lead counts, not where they lie."""
    if not permissions.allow_outside and not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            "The file lies outside the dataset folder.", str(path), "Move it into the folder, or add --allow-outside."
        )


def _label(spec: DatasetSpec, path: Path) -> str:
    try:
        return path.resolve().relative_to(spec.folder_path.resolve()).as_posix()
    except ValueError:
        return path.name


def _origin(spec: DatasetSpec, label: str, raw: RawRow) -> Origin:
    section = raw.value.get("section") if isinstance(raw.value, dict) else None
    return Origin(spec.name, label, raw.row, raw.line, section=section if isinstance(section, str) else None)


def _verify(spec: DatasetSpec, path: Path) -> None:
    for kind, expected in (("sha1", spec.file_sha1), ("sha256", spec.file_sha256)):
        if not expected:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != expected.strip().lower():
            raise DataError(
                f"The file's {kind.upper()} is {found}, the entry says {expected}.",
                str(path),
                f"Get the right file, or take file_{kind} out of the entry.",
            )


def check_columns(spec: DatasetSpec, seen: set[str], stage: str, notes: Notes) -> None:
    """Named columns that are in no row; known columns that are not mapped; defaults used although not listed.

    Raises: DataError for a named column that the stage needs and no row has.
    """
    if not seen:
        return
    needed = _fields_of(spec, stage)
    for name in sorted(spec.columns_given):
        column = spec.columns[name]
        if not column or column in seen:
            continue
        if name in REQUIRED and name in needed:
            near = close_matches(column, seen, 1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise DataError(
                f"No row has the column {column!r} (columns.{name}).",
                f"dataset {spec.name!r}",
                f"{hint}There are: {', '.join(sorted(seen))}.",
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
        if column and column not in seen:
            raise DataError(
                f"No row has the column {column!r} ({name}).",
                f"dataset {spec.name!r}",
                f'Map it: "columns": {{"{name}": …}}. There are: {", ".join(sorted(map(str, seen)))}.',
            )


def _fields_of(spec: DatasetSpec, stage: str) -> set[str]:
    """The fields that this stage reads of this format."""
    if stage == "pt":
        return {"prompt"}
    answers = {"chosen", "rejected"} if spec.ranking else {"response"}
    if spec.formatting == "alpaca":
        fields = {"prompt", "query"} | answers
    else:
        fields = {"messages"} | (answers if spec.ranking else set())
    return fields | ({"kto_tag"} if spec.columns["kto_tag"] else set())


def columns_of(rows: Iterable[Any]) -> list[str]:
    """Every column of some rows, in the order in which they first appear."""
    names: dict[str, None] = {}
    for row in rows:
        if isinstance(row, dict):
            names.update(dict.fromkeys(name for name, value in row.items() if not is_missing(value)))
    return list(names)
