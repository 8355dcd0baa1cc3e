"""Checks a model or adapter folder before a library opens it: no imported code, no pipes, no paths outside it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from sartor.base.errors import ModelError
from sartor.base.i18n import tr

FIX = tr("Use a model from a source that you trust.")
MAX_JSON_BYTES = 64 << 20
"""A tokenizer.json of 64 MiB would have a vocabulary of millions."""


def check_folder(folder: Path) -> None:
    """Raises: ModelError if a file is a pipe or device, or an index names a file outside the folder.

    Symbolic links are followed, because hub caches consist of them; their targets must be regular files.
    """
    for file in sorted(folder.iterdir()):
        try:
            mode = file.stat().st_mode
        except OSError as error:
            raise ModelError(
                "Could not read {file}: {reason}.", folder, FIX, file=file.name, reason=error.strerror
            ) from error
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ModelError("{file} is not a regular file.", folder, FIX, file=file.name)
    for index in sorted(folder.glob("*.index.json")):
        weight_map = read_json_object(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ModelError("{file} has no weight_map.", folder, "Download the model again.", file=index.name)
        for name in sorted({str(value) for value in weight_map.values()}):
            if Path(name).name != name or not (folder / name).is_file():
                raise ModelError(
                    "{file} names {name!r}, which is not in the folder.", folder, FIX, file=index.name, name=name
                )
    if (folder / "config.json").exists():
        kind = read_json_object(folder / "config.json").get("model_type", "")
        if not isinstance(kind, str) or (kind and not kind.replace("-", "_").replace(".", "_").isidentifier()):
            raise ModelError("Invalid model_type in config.json: {name!r}.", folder, FIX, name=kind)


def check_adapter(folder: Path) -> None:
    """Also reject an adapter config that makes peft import modules. Raises: ModelError, as `check_folder`."""
    check_folder(folder)
    config = read_json_object(folder / "adapter_config.json")
    for key in ("megatron_config", "auto_mapping"):
        if config.get(key):
            raise ModelError("adapter_config.json requires code to be imported ({key}).", folder, FIX, key=key)


def read_json_object(file: Path) -> dict[str, Any]:
    """The object in one of a model's JSON files. Raises: ModelError."""
    if file.is_file() and file.stat().st_size > MAX_JSON_BYTES:
        raise ModelError("{file} is larger than {limit} MiB.", file, FIX, file=file.name, limit=MAX_JSON_BYTES >> 20)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            "{file} is damaged: {reason}.", file, "Download it again.", file=file.name, reason=error
        ) from error
    if not isinstance(value, dict):
        raise ModelError("{file} is damaged: not a JSON object.", file, "Download it again.", file=file.name)
    return value
