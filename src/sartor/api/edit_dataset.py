"""Mending a dataset by hand: its rows as they stand in the files, and a new version with rows changed or dropped."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError
from sartor.base.files import atomic_write
from sartor.base.types import Origin
from sartor.data.dataset_info import parse_entry, read_registry, write_entry
from sartor.data.load import load_spec
from sartor.data.read_rows import read_values

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
"""Entry keys that speak of the old file, not of its columns."""


def read_rows(name: str, dataset_dir: str | Path = "data") -> list[tuple[Origin, Any]]:
    """Every row of a dataset as its file holds it, faulty ones too. Raises: DataError as `load` does."""
    return list(read_values(read_registry(Path(dataset_dir)).spec(name)))


def save_version(
    name: str, dataset_dir: str | Path = "data", *, changes: Mapping[str, Any], added: Sequence[Any] = ()
) -> str:
    """Write a dataset anew with rows changed (id → row), dropped (id → None) or added; the old one stays.

    Returns the new name: `pride` → `pride-v2`. Raises: DataError for an unknown row, or when no row can be read.
    """
    folder = Path(dataset_dir)
    registry = read_registry(folder)
    rows = list(read_values(registry.spec(name)))
    unknown = set(changes) - {origin.id for origin, _ in rows}
    if unknown:
        raise DataError("The dataset has no such row.", f"{name}: {sorted(unknown)[0]}", "Load the page again.")
    kept = [changes.get(origin.id, row) for origin, row in rows]
    kept = [row for row in (*kept, *added) if row is not None]
    stem, number = re.sub(r"-v\d+$", "", name), 2
    while f"{stem}-v{number}" in registry.entries or (folder / f"{stem}-v{number}.json").exists():
        number += 1
    new = f"{stem}-v{number}"
    entry = {key: value for key, value in registry.entries[name].items() if key not in FILE_KEYS}
    entry = {"file_name": f"{new}.json", **entry}
    target = folder / f"{new}.json"
    spec = parse_entry(new, entry, registry.path)
    atomic_write(target, "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in kept) + "\n]\n")
    try:
        load_spec(spec)
    except DataError:
        target.unlink()
        raise
    write_entry(folder, new, entry)
    return new


def add_row(name: str, dataset_dir: str | Path, row: Any) -> None:
    """Put a row at the end of a dataset in sharegpt form, which is made when it is not there.

    Raises: DataError when a dataset of this name has another form, or its file cannot be read.
    """
    folder = Path(dataset_dir)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.json"
    entry = {"file_name": target.name, "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    entries = read_registry(folder).entries if (folder / "dataset_info.json").exists() else {}
    if name in entries and entries[name] != entry:
        raise DataError(f"The dataset {name!r} has another form.", str(folder), "Rename it, then save again.")
    rows = [value for _, value in read_rows(name, folder)] if name in entries else []
    text = "[\n" + ",\n".join(json.dumps(value, ensure_ascii=False) for value in (*rows, row)) + "\n]\n"
    atomic_write(target, text)
    write_entry(folder, name, entry)
