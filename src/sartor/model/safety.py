"""Looks at a model's or adapter's folder before any library opens it: nothing in it may run, hang or lead outside."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from sartor.base.errors import ModelError

FIX = "Take the model from a source that you trust."
MAX_JSON_BYTES = 64 << 20
"""A tokenizer.json of 64 MiB would be a vocabulary of millions."""


def check_folder(folder: Path) -> None:
    """Raises: ModelError when a file is a pipe or device, or an index names a file outside of the folder.

    Symbolic links are followed: hub caches are made of them; what they lead to must be a plain file.
    """
    for file in sorted(folder.iterdir()):
        try:
            mode = file.stat().st_mode
        except OSError as error:
            raise ModelError(f"{file.name} cannot be read: {error.strerror}.", str(folder), FIX) from error
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ModelError(f"{file.name} is no plain file.", str(folder), FIX)
    for index in sorted(folder.glob("*.index.json")):
        weight_map = _object(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ModelError(f"{index.name} has no weight_map.", str(folder), "Fetch the model again.")
        for name in sorted({str(value) for value in weight_map.values()}):
            if Path(name).name != name or not (folder / name).is_file():
                raise ModelError(f"{index.name} names {name!r}, no file of this folder.", str(folder), FIX)
    if (folder / "config.json").exists():
        kind = _object(folder / "config.json").get("model_type", "")
        if not isinstance(kind, str) or (kind and not kind.replace("-", "_").replace(".", "_").isidentifier()):
            raise ModelError(f"config.json names an impossible model_type: {kind!r}.", str(folder), FIX)


def check_adapter(folder: Path) -> None:
    """As `check_folder`; and the adapter's config may not name modules for peft to import. Raises: ModelError."""
    check_folder(folder)
    config = _object(folder / "adapter_config.json")
    for key in ("megatron_config", "auto_mapping"):
        if config.get(key):
            raise ModelError(f"adapter_config.json wants code to be imported ({key}).", str(folder), FIX)


def _object(file: Path) -> dict[str, Any]:
    if file.stat().st_size > MAX_JSON_BYTES:
        raise ModelError(f"{file.name} is too large to be what it says.", str(file), FIX)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file.name} is damaged: {error}.", str(file), "Fetch it again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{file.name} is damaged: it holds no object.", str(file), "Fetch it again.")
    return value
