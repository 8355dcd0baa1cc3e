"""`dataset_info.json`, the registry of datasets: entries are checked strictly, one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError, did_you_mean
from sartor.base.files import atomic_write
from sartor.base.i18n import Text, tr
from sartor.base.locks import REGISTRY_WAIT_S, file_lock
from sartor.base.yaml_values import unusable
from sartor.data.dataset_spec import COLUMNS, TAGS, DatasetSpec
from sartor.data.encoding import read_text
from sartor.data.formats import FORMATS, Format
from sartor.data.json_stream import DuplicateKeyDict, parse_json

REGISTRY = "dataset_info.json"
KEYS: Mapping[str, type] = {
    "hf_hub_url": str,
    "ms_hub_url": str,
    "om_hub_url": str,
    "script_url": str,
    "cloud_file_name": str,
    "file_name": str,
    "file_sha1": str,
    "file_sha256": str,
    "encoding": str,
    "subset": str,
    "folder": str,
    "split": str,
    "num_samples": int,
    "ranking": bool,
    "formatting": str,
    "columns": dict,
    "tags": dict,
}
"""Key of an entry → the type of its value."""


@dataclass(frozen=True, slots=True)
class DatasetRegistry:
    """A `dataset_info.json`. An entry is checked when it is requested, so that a bad one does not affect the others."""

    path: Path
    entries: Mapping[str, Any]

    def spec(self, name: str) -> DatasetSpec:
        """The checked entry. Raises: DataError for an unknown name (with the nearest) or a bad entry."""
        if name not in self.entries:
            raise DataError("Unknown dataset {name!r}.", self.path, did_you_mean(name, self.entries), name=name)
        if isinstance(self.entries, DuplicateKeyDict) and name in self.entries.duplicate_keys:
            raise _duplicate_entry(name, self.path)
        return parse_entry(name, self.entries[name], self.path)


def read_registry(dataset_dir: Path) -> DatasetRegistry:
    """The registry of a folder. Raises: DataError naming line and column of a JSON error, and its usual cause."""
    path = dataset_dir / REGISTRY
    if str(dataset_dir).startswith("REMOTE:") or str(dataset_dir) == "ONLINE":
        raise DataError(
            "A dataset_info.json on a hub is not read.",
            f"dataset_dir: {dataset_dir}",
            "Download it, and set dataset_dir to its folder.",
        )
    if not path.exists():
        raise DataError(
            "No {file} in this folder.",
            dataset_dir,
            "Create one with `sartor import FILE --name NAME --dataset-dir FOLDER`, or pass the right --dataset-dir.",
            file=REGISTRY,
        )
    entries = parse_json(read_text(path).text, str(path))
    if not isinstance(entries, dict):
        raise DataError("The file is not a JSON object.", path, 'Write {"name": {"file_name": "…"}}.')
    return DatasetRegistry(path, entries)


def parse_entry(name: str, entry: Any, path: Path) -> DatasetSpec:
    """Check one entry strictly.

    Raises: DataError for an unknown key (with the nearest), a wrong type, no source at all, or media columns.
    """
    where = tr("{file}, entry {name!r}", file=path, name=name)
    if not isinstance(entry, dict):
        raise DataError("The entry is not a JSON object.", where, 'Write {"file_name": "…"}.')
    if reason := unusable(name) or unusable(entry):
        shown = name.encode("utf-8", "backslashreplace").decode()[:80]
        raise DataError(
            "The entry {name!r} cannot be used: it {reason}.", path, "Fix it there.", name=shown, reason=reason
        )
    for part in (entry, entry.get("columns"), entry.get("tags")):
        if isinstance(part, DuplicateKeyDict):
            raise DataError(
                "Duplicate key {key!r}.", where, "Delete or rename one of them.", key=part.duplicate_keys[0]
            )
    for key, value in entry.items():
        _check_type(key, value, where)
    given = {key: value for key, value in entry.items() if value is not None and key not in ("columns", "tags")}
    formatting = given.get("formatting", "alpaca")
    if formatting not in FORMATS.names():
        raise DataError(
            "Unknown formatting {name!r}.", where, did_you_mean(formatting, FORMATS.names()), name=formatting
        )
    if given.get("num_samples", 1) < 1:
        raise DataError("num_samples must be at least 1.", where, "Omit it to use all rows.")
    columns = entry.get("columns") or {}
    spec = DatasetSpec(
        name=name,
        folder_path=path.parent,
        columns=_columns(columns, FORMATS.get(formatting), where),
        columns_given=frozenset(columns),
        tags=_tags(entry.get("tags") or {}, FORMATS.get(formatting), where),
        **given,
    )
    _require_source(spec, where)
    return spec


def _check_type(key: str, value: Any, where: Text) -> None:
    if key not in KEYS:
        raise DataError("Unknown key {key!r}.", where, did_you_mean(key, KEYS), key=key)
    kind = KEYS[key]
    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise DataError(
            "Invalid value for {key}: {value}.",
            where,
            "Expected a value of type {type}.",
            key=key,
            value=json.dumps(value, ensure_ascii=False),
            type=kind.__name__,
        )


def _columns(given: Mapping[str, Any], formatting: Format, where: Text) -> dict[str, str | None]:
    columns = dict(formatting.columns)
    for field_name, column in given.items():
        if field_name not in COLUMNS:
            raise DataError(
                "Unknown field {field!r} in columns.", where, did_you_mean(field_name, COLUMNS), field=field_name
            )
        if column is not None and not isinstance(column, str):
            raise DataError("columns.{field} is not a string.", where, "Write the column's name.", field=field_name)
        columns[field_name] = column or None
    for media in ("images", "videos", "audios"):
        if columns[media]:
            raise DataError("Sartor does not train on {media} yet.", where, "Remove columns.{media}.", media=media)
    return columns


def _tags(given: Mapping[str, Any], formatting: Format, where: Text) -> dict[str, str]:
    tags = dict(formatting.tags)
    for tag, value in given.items():
        if tag not in TAGS:
            raise DataError("Unknown tag {tag!r} in tags.", where, did_you_mean(tag, TAGS), tag=tag)
        if not isinstance(value, str) or not value:
            raise DataError(
                "tags.{tag} is not a non-empty string.", where, "Write the word that the rows use.", tag=tag
            )
        tags[tag] = value
    return tags


def _require_source(spec: DatasetSpec, where: Text) -> None:
    if any((spec.hf_hub_url, spec.ms_hub_url, spec.script_url, spec.cloud_file_name, spec.file_name)):
        return
    if spec.om_hub_url:
        raise DataError("om_hub_url is not supported.", where, "Add file_name, hf_hub_url or ms_hub_url.")
    raise DataError("The entry has no source.", where, 'Add "file_name": "…".')


def write_entry(dataset_dir: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Add or replace one entry, atomically, and keep all others as they are.

    Raises: DataError when the existing registry cannot be read (it is left alone then).
    """
    path = dataset_dir / REGISTRY
    with file_lock(path, REGISTRY_WAIT_S):
        existing = read_registry(dataset_dir).entries if path.exists() else {}
        if isinstance(existing, DuplicateKeyDict):
            raise _duplicate_entry(existing.duplicate_keys[0], path)
        entries = {**existing, name: dict(entry)}
        atomic_write(path, json.dumps(entries, ensure_ascii=False, indent=2) + "\n")


def beside(dataset_dir: Path, dataset: str, suffix: str) -> Path:
    """A file that belongs to a dataset, beside the registry."""
    name = re.sub(r'[/\\:*?"<>|\0]', lambda found: f"%{ord(found[0]):02x}", dataset)
    return dataset_dir / f"{name}.{suffix}"


def next_version(dataset_dir: Path, dataset: str, entries: Mapping[str, Any]) -> str:
    """The first free name for a new version: `pride` → `pride-v2`."""
    stem, number = re.sub(r"-v\d+$", "", dataset), 2
    while (name := f"{stem}-v{number}") in entries or beside(dataset_dir, name, "json").exists():
        number += 1
    return name


def _duplicate_entry(name: str, path: Path) -> DataError:
    return DataError("Duplicate entry {name!r}.", path, "Delete or rename one of them.", name=name)
