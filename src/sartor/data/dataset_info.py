"""dataset_info.json: the registry people already have, read strictly, one entry at a time; reads no dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError, did_you_mean
from sartor.base.files import atomic_write, file_lock
from sartor.data.encoding import read_text
from sartor.data.json_stream import DuplicateKeyDict, parse_json

REGISTRY = "dataset_info.json"
COLUMNS: Mapping[str, str | None] = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "messages": "conversations",
    "history": None,
    "system": None,
    "tools": None,
    "chosen": None,
    "rejected": None,
    "kto_tag": None,
    "images": None,
    "videos": None,
    "audios": None,
}
"""Field → the column it is read from when the entry does not say."""
TAGS: Mapping[str, str] = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
OPENAI_TAGS: Mapping[str, str] = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function_call",
    "system_tag": "system",
}
KEYS: Mapping[str, type | tuple[type, ...]] = {
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
FORMATTINGS = ("alpaca", "sharegpt", "openai")


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """One entry of the registry, checked; `columns` and `tags` are merged onto the defaults."""

    name: str
    folder_path: Path
    hf_hub_url: str | None = None
    ms_hub_url: str | None = None
    om_hub_url: str | None = None
    script_url: str | None = None
    cloud_file_name: str | None = None
    file_name: str | None = None
    file_sha1: str | None = None
    file_sha256: str | None = None
    encoding: str | None = None
    subset: str | None = None
    folder: str | None = None
    split: str = "train"
    num_samples: int | None = None
    ranking: bool = False
    formatting: str = "alpaca"
    columns: Mapping[str, str | None] = field(default_factory=lambda: dict(COLUMNS))
    columns_given: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=lambda: dict(TAGS))


@dataclass(frozen=True, slots=True)
class Registry:
    """A dataset_info.json; entries are checked when they are asked for, so that one bad entry spoils no other."""

    path: Path
    entries: Mapping[str, Any]

    def spec(self, name: str) -> DatasetSpec:
        """The checked entry. Raises: DataError for an unknown name (with the nearest) or a bad entry."""
        if name not in self.entries:
            raise DataError(f"There is no dataset {name!r}.", str(self.path), did_you_mean(name, self.entries))
        if isinstance(self.entries, DuplicateKeyDict) and name in self.entries.duplicate_key:
            raise DataError(f"The entry {name!r} stands twice.", str(self.path), "Delete one, or name it anew.")
        return parse_entry(name, self.entries[name], self.path)


def read_registry(dataset_dir: Path) -> Registry:
    """The registry of a folder. Raises: DataError naming line and column of a JSON error, and its usual cause."""
    path = dataset_dir / REGISTRY
    if not path.exists():
        raise DataError(
            f"There is no {REGISTRY} in this folder.",
            str(dataset_dir),
            "Make one: sartor import FILE --name NAME --dataset-dir FOLDER; or name the right --dataset-dir.",
        )
    entries = parse_json(read_text(path).text, str(path))
    if not isinstance(entries, dict):
        raise DataError(f"{REGISTRY} is no JSON object.", str(path), 'Write {"name": {"file_name": "…"}}.')
    return Registry(path, entries)


def parse_entry(name: str, entry: Any, path: Path) -> DatasetSpec:
    """Check one entry strictly.

    Raises: DataError for an unknown key (with the nearest), a wrong type, no source at all, or media columns.
    """
    where = f"{path}, entry {name!r}"
    if not isinstance(entry, dict):
        raise DataError("The entry is no JSON object.", where, 'Write {"file_name": "…"}.')
    for part in (entry, entry.get("columns"), entry.get("tags")):
        if isinstance(part, DuplicateKeyDict):
            raise DataError(f"The key {part.duplicate_key[0]!r} stands twice.", where, "Delete one.")
    for key, value in entry.items():
        if key not in KEYS:
            raise DataError(f"The entry has an unknown key {key!r}.", where, did_you_mean(key, KEYS))
        kind = KEYS[key]
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            wanted = kind.__name__ if isinstance(kind, type) else str(kind)
            raise DataError(f"{key} is {json.dumps(value, ensure_ascii=False)}.", where, f"Write a {wanted}.")
    given = {key: value for key, value in entry.items() if value is not None and key not in ("columns", "tags")}
    formatting = given.get("formatting", "alpaca")
    if formatting not in FORMATTINGS:
        raise DataError(f"There is no formatting {formatting!r}.", where, did_you_mean(formatting, FORMATTINGS))
    if given.get("num_samples", 1) < 1:
        raise DataError("num_samples must be at least 1.", where, "Leave it out to use all rows.")
    columns, columns_given = _columns(entry.get("columns") or {}, formatting, where)
    spec = DatasetSpec(
        name=name,
        folder_path=path.parent,
        columns=columns,
        columns_given=columns_given,
        tags=_tags(entry.get("tags") or {}, formatting, where),
        **given,
    )
    _need_source(spec, where)
    return spec


def _columns(given: Mapping[str, Any], formatting: str, where: str) -> tuple[dict[str, str | None], frozenset[str]]:
    columns = dict(COLUMNS)
    if formatting == "openai":
        columns["messages"] = "messages"
    for field_name, column in given.items():
        if field_name not in COLUMNS:
            raise DataError(f"columns has an unknown field {field_name!r}.", where, did_you_mean(field_name, COLUMNS))
        if column is not None and not isinstance(column, str):
            raise DataError(f"columns.{field_name} is no text.", where, "Write the column's name.")
        columns[field_name] = column or None
    media = [name for name in ("images", "videos", "audios") if columns[name]]
    if media:
        raise DataError(f"Sartor does not train on {media[0]} yet.", where, f"Take columns.{media[0]} out.")
    return columns, frozenset(given)


def _tags(given: Mapping[str, Any], formatting: str, where: str) -> dict[str, str]:
    tags = dict(OPENAI_TAGS if formatting == "openai" else TAGS)
    for tag, value in given.items():
        if tag not in TAGS:
            raise DataError(f"tags has an unknown tag {tag!r}.", where, did_you_mean(tag, TAGS))
        if not isinstance(value, str) or not value:
            raise DataError(f"tags.{tag} is no text.", where, "Write the word that the rows use.")
        tags[tag] = value
    return tags


def _need_source(spec: DatasetSpec, where: str) -> None:
    sources = (spec.hf_hub_url, spec.ms_hub_url, spec.script_url, spec.cloud_file_name, spec.file_name)
    if any(sources):
        return
    if spec.om_hub_url:
        raise DataError("om_hub_url alone is no source here.", where, "Add file_name, hf_hub_url or ms_hub_url.")
    raise DataError("The entry names no source.", where, 'Add "file_name": "…".')


def write_entry(dataset_dir: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Add or replace one entry, atomically, keeping all others as they are.

    Raises: DataError when the registry that is there cannot be read (it is left alone then).
    """
    path = dataset_dir / REGISTRY
    with file_lock(path):
        there = read_registry(dataset_dir).entries if path.exists() else {}
        if isinstance(there, DuplicateKeyDict):
            raise DataError(
                f"The entry {there.duplicate_key[0]!r} stands twice.", str(path), "Delete one, or name it anew."
            )
        entries = dict(there)
        entries[name] = dict(entry)
        atomic_write(path, json.dumps(entries, ensure_ascii=False, indent=2) + "\n")
