"""What happens to a dataset whose name is taken: nothing, unless a person says so; then it is moved, never lost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sartor.base.errors import DataError
from sartor.base.files import atomic_write, move_to_trash
from sartor.data.dataset_info import REGISTRY, beside, next_version, read_registry

Existing: TypeAlias = Literal["refuse", "version", "overwrite"]
"""Refuse the name; write `NAME-v2` beside the old dataset; or replace it and keep it in the trash."""
COMPANIONS = ("json", "import.jsonl", "split.json")
"""The files of a dataset beside the registry."""


@dataclass(frozen=True, slots=True)
class Retired:
    """The files of an old dataset, in the trash: (where it was, where it is)."""

    moved: tuple[tuple[Path, Path], ...] = ()
    created: tuple[Path, ...] = ()
    """The files that the new dataset writes."""

    def restore(self) -> None:
        """Put everything back, after a failure."""
        for file in self.created:
            file.unlink(missing_ok=True)
        for old, new in self.moved:
            os.replace(new, old)


def make_room(
    name: str, dataset_dir: Path, entry: Mapping[str, Any], text: str, existing: Existing
) -> tuple[str, Retired]:
    """The name to write a new dataset under, and what was moved out of its way.

    The same rows under the same entry are written again as they are. Raises: DataError when the name is taken and
    `existing` is `refuse` (code `dataset-exists`), or when its file is not this dataset's (`file-exists`).
    """
    entries = read_registry(dataset_dir).entries if (dataset_dir / REGISTRY).exists() else {}
    files = tuple(beside(dataset_dir, name, suffix) for suffix in COMPANIONS)
    target, created = files[0], files[:2]
    if name not in entries and not target.exists():
        return name, Retired(created=created)
    if existing == "version":
        version = next_version(dataset_dir, name, entries)
        return version, Retired(created=tuple(beside(dataset_dir, version, suffix) for suffix in COMPANIONS[:2]))
    own = _own_file(name, entries, target)
    if own and entries.get(name) == entry and target.read_bytes() == text.encode("utf-8", "backslashreplace"):
        return name, Retired()
    if target.exists() and not own:
        raise DataError(
            "The file exists already and is not only this dataset's.",
            target,
            "Choose another --name, for example {version}.",
            code="file-exists",
            version=next_version(dataset_dir, name, entries),
        )
    if existing == "refuse":
        raise DataError(
            "The dataset {name!r} exists already.",
            target if target.exists() else dataset_dir / REGISTRY,
            "Choose another --name, add --new-version to import as {version}, or add --overwrite (the old dataset is "
            "then kept in {trash}).",
            code="dataset-exists",
            name=name,
            version=next_version(dataset_dir, name, entries),
            trash=dataset_dir / ".trash",
        )
    moved = tuple((file, move_to_trash(file)) for file in files if file.exists())
    kept = dataset_dir / f"{name}.entry.json"
    atomic_write(kept, json.dumps({name: entries.get(name)}, ensure_ascii=False, indent=2) + "\n")
    move_to_trash(kept)
    return name, Retired(moved, created)


def _own_file(name: str, entries: Mapping[str, Any], target: Path) -> bool:
    """Whether the file is this dataset's and no other's."""
    used = [key for key, entry in entries.items() if isinstance(entry, dict) and entry.get("file_name") == target.name]
    return target.exists() and used == [name]
