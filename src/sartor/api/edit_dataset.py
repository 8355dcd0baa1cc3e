"""Edits a dataset: its rows as the files hold them, and a new version with rows changed or dropped."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError
from sartor.base.files import atomic_write
from sartor.base.locks import REGISTRY_WAIT_S, file_lock
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
"""Entry keys that describe the old file, not its columns."""


def read_rows(name: str, dataset_dir: str | Path = "data") -> list[tuple[Origin, Any]]:
    """Every row of a dataset as its file holds it, invalid ones included. Raises: DataError as `load` does.

    Example:
        >>> origin, row = sartor.read_rows("chapters")[0]
        >>> sorted(row)
        ['answer', 'question']
    """
    return list(read_values(read_registry(Path(dataset_dir)).spec(name)))


def save_version(
    name: str, dataset_dir: str | Path = "data", *, changes: Mapping[str, Any], added: Sequence[Any] = ()
) -> str:
    """Write a new version of a dataset with rows changed (id → row), dropped (id → None) or added; keep the old one.

    Returns the new name: `pride` → `pride-v2`. Raises: DataError for an unknown row, or when no row can be read.

    Example:
        >>> origin, row = sartor.read_rows("chapters")[0]
        >>> sartor.save_version("chapters", changes={origin.id: None})
        'chapters-v2'
    """
    folder = Path(dataset_dir)
    with file_lock(folder / f"{name}.versions", REGISTRY_WAIT_S):  # else two could choose the same number
        return _save_version(name, folder, changes, added)


def _save_version(name: str, folder: Path, changes: Mapping[str, Any], added: Sequence[Any]) -> str:
    registry = read_registry(folder)
    rows = list(read_values(registry.spec(name)))
    unknown = set(changes) - {origin.id for origin, _ in rows}
    if unknown:
        raise DataError("Unknown row.", f"{name}: {sorted(unknown)[0]}", "Reload the page.")
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
    """Append a row to a dataset in sharegpt format; the dataset is created if it does not exist.

    Raises: DataError when a dataset of this name has another format, or its file cannot be read.

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
    rows = [value for _, value in read_rows(name, folder)] if name in entries else []
    text = "[\n" + ",\n".join(json.dumps(value, ensure_ascii=False) for value in (*rows, row)) + "\n]\n"
    atomic_write(target, text)
    write_entry(folder, name, entry)
