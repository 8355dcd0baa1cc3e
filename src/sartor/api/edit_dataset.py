"""Edits a dataset: its rows as the files hold them, and a new version with rows changed or dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError
from sartor.base.files import system_errors
from sartor.base.locks import REGISTRY_WAIT_S, file_lock
from sartor.base.types import Origin, Skipped
from sartor.data import import_record as import_records
from sartor.data.dataset_info import next_version, parse_entry, read_registry, write_entry
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.import_file import dataset_row
from sartor.data.import_record import RefusedRow
from sartor.data.json_rows import write_rows
from sartor.data.load import load_spec
from sartor.data.read_rows import read_raw, read_values
from sartor.data.validate import RowRejected

FILE_KEYS = (
    "file_name",
    "file_sha1",
    "file_sha256",
    "encoding",
    "folder",
    "split",
    "num_samples",
    "subset",
    "script_url",
    "cloud_file_name",
    "hf_hub_url",
    "ms_hub_url",
    "om_hub_url",
)
"""Entry keys that describe the old file, not its columns."""


@system_errors()
def read_rows(name: str, dataset_dir: str | Path = "data") -> list[tuple[Origin, Any]]:
    """Every row of a dataset as its file holds it, invalid ones included. Raises: DataError as `load` does.

    Example:
        >>> origin, row = sartor.read_rows("chapters")[0]
        >>> sorted(row)
        ['answer', 'question']
    """
    return list(read_values(read_registry(Path(dataset_dir)).spec(name)))


def read_refused(name: str, dataset_dir: str | Path = "data") -> list[RefusedRow]:
    """Every row that the import of a dataset refused, with its place, reason and text; repaired ones say so.

    Raises: DataError when the record is damaged.

    Example:
        >>> sartor.read_refused("chapters")
        []
    """
    return import_records.read_refused(Path(dataset_dir), name)


# The keywords are the kinds of changes.
@system_errors()
def save_version(
    name: str,
    dataset_dir: str | Path = "data",
    *,
    changes: Mapping[str, Any],
    added: Sequence[Any] = (),
    repaired: Mapping[int, Any] | None = None,
) -> str:
    """Write a new version of a dataset with rows changed (id → row), dropped (id → None) or added; keep the old one.

    `repaired` are rows that the import refused: their position in `read_refused` → the row as the imported file should
    have had it. The new version keeps the record of the import, and of rows that cannot be read. Returns the new name:
    `pride` → `pride-v2`. Raises: DataError for an unknown row, a repaired row that is still refused, or when no row can
    be read.

    Example:
        >>> origin, row = sartor.read_rows("chapters")[0]
        >>> sartor.save_version("chapters", changes={origin.id: None})
        'chapters-v2'
    """
    folder = Path(dataset_dir)
    with file_lock(folder / f"{name}.versions", REGISTRY_WAIT_S):  # else two could choose the same number
        return _save_version(name, folder, changes, added, repaired or {})


def _save_version(
    name: str, folder: Path, changes: Mapping[str, Any], added: Sequence[Any], repaired: Mapping[int, Any]
) -> str:
    registry = read_registry(folder)
    spec = registry.spec(name)
    rows = list(read_raw(spec))
    unknown = set(changes) - {origin.id for origin, _ in rows}
    if unknown:
        raise DataError("Unknown row.", f"{name}: {sorted(unknown)[0]}", "Reload the page.")
    kept = [
        (changes.get(origin.id, raw.value), origin.imported_from)
        for origin, raw in rows
        if raw.fault is None or origin.id in changes
    ]
    kept = [(row, place) for row, place in (*kept, *((row, None) for row in added)) if row is not None]
    mended = _repaired_rows(spec, repaired)
    unreadable = [
        RefusedRow.of(Skipped(origin, "row-broken", None, {"reason": raw.fault}), raw)
        for origin, raw in rows
        if raw.fault is not None and origin.id not in changes
    ]
    new = next_version(folder, name, registry.entries)
    entry = {key: value for key, value in registry.entries[name].items() if key not in FILE_KEYS}
    entry = {"file_name": f"{new}.json", **entry}
    target = folder / f"{new}.json"
    written = parse_entry(new, entry, registry.path)
    write_rows(target, (*(row for row, _ in kept), *mended))
    try:
        places = [place for _, place in kept]
        import_records.carry_over(folder, name, target, places, repaired, unreadable, len(rows))
        load_spec(written, stage=_stage_of(written))
    except DataError:
        target.unlink()
        import_records.record_path(folder, new).unlink(missing_ok=True)
        raise
    write_entry(folder, new, entry)
    return new


def _repaired_rows(spec: DatasetSpec, repaired: Mapping[int, Any]) -> list[Any]:
    """Rows as the imported file should have had them → rows of the dataset. Raises: DataError with what is wrong."""
    if not repaired:
        return []
    refused = import_records.read_refused(spec.folder_path, spec.name)
    summary = import_records.read_summary(spec.folder_path, spec.name)
    made = []
    for place, row in repaired.items():
        if not 0 <= place < len(refused):
            raise DataError("Unknown row.", f"{spec.name}: {place}", "Reload the page.")
        origin = refused[place].origin(spec.name)
        try:
            made.append(dataset_row(row, summary.columns, spec.formatting, origin) if summary else row)
        except RowRejected as reason:
            skipped = Skipped(origin, reason.code, reason.column, reason.params)
            raise DataError(skipped.reason, origin, skipped.fix) from None
    return made


def _stage_of(spec: DatasetSpec) -> str:
    """A stage that reads the rows; documents have no answers."""
    return "pt" if spec.columns_given == {"prompt"} else "sft"


@system_errors()
def add_row(name: str, dataset_dir: str | Path, row: Any) -> None:
    """Append a row to a dataset in sharegpt format; the dataset is created if it does not exist.

    Raises: DataError when a dataset of this name has another format, a file of its name is not its own, or its file
    cannot be read.

    Example:
        >>> turns = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}]
        >>> sartor.add_row("kept", "data", {"conversations": turns})
        >>> len(sartor.load("kept").examples)
        1
    """
    folder = Path(dataset_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / f"{name}.json", REGISTRY_WAIT_S):
        _add_row(name, folder, row)


def _add_row(name: str, folder: Path, row: Any) -> None:
    target = folder / f"{name}.json"
    entry = {"file_name": target.name, "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    entries = read_registry(folder).entries if (folder / "dataset_info.json").exists() else {}
    if name in entries and entries[name] != entry:
        raise DataError(
            "The dataset {name!r} is not in sharegpt format.", folder, "Rename it, then save again.", name=name
        )
    if name not in entries and target.exists():
        raise DataError("The file exists already and is not only this dataset's.", target, "Choose another name.")
    rows = list(read_raw(read_registry(folder).spec(name))) if name in entries else []
    if broken := next((origin for origin, raw in rows if raw.fault is not None), None):
        raise DataError("A row of the dataset cannot be read.", broken, "Fix it first; it would be lost.")
    write_rows(target, [*(raw.value for _, raw in rows), row])
    write_entry(folder, name, entry)
