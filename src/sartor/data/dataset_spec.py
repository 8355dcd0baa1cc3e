"""One entry of `dataset_info.json`, checked: where the rows are and which columns hold what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
"""Field → the column it is read from when neither the entry nor the format says otherwise."""
TAGS: Mapping[str, str] = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
"""Tag → the key or role word that the turns use when neither the entry nor the format says otherwise."""


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """One checked entry; `columns` and `tags` are the entry's, merged onto the defaults of its format."""

    name: str
    folder_path: Path
    """The folder that holds `dataset_info.json`; `file_name` and `script_url` are relative to it."""
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
    """The fields whose column the entry itself names."""
    tags: Mapping[str, str] = field(default_factory=lambda: dict(TAGS))
