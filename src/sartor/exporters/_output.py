"""What every export shares: the folder, its export.json, tokenizer files and merged weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sartor.base.errors import ExportError
from sartor.base.files import atomic_write, disk_error, move_to_trash, sha256_file, usual_permissions
from sartor.base.locks import file_lock
from sartor.exporters import ExportResult, Source
from sartor.model.safety import read_json_object

RECORD = "export.json"
"""A file in every export; a folder that holds it may be replaced."""


@contextmanager
def exported_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` to write into; it replaces `out` only if nothing is raised.

    An earlier export there goes to the trash. Raises: ExportError when `out` holds anything else.
    """
    with file_lock(out):
        yield from _exported_folder(out)


def _exported_folder(out: Path) -> Iterator[Path]:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).exists())):
        raise ExportError(
            "The folder is not empty and holds no earlier export.", str(out), "Choose another with --out."
        )
    tmp = out.with_name(f".{out.name}.part")
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True)
    try:
        yield tmp
    except OSError as error:
        shutil.rmtree(tmp, ignore_errors=True)
        raise disk_error(error, out) from error
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise
    if out.exists():
        if any(out.iterdir()):
            move_to_trash(out)
        else:
            out.rmdir()
    usual_permissions(tmp)
    tmp.rename(out)


def write_record(folder: Path, format: str, source: Source, result: ExportResult) -> None:
    """export.json: the format, the model, the checks, and the hash of every file."""
    record: Mapping[str, Any] = {
        "form": format,
        "name": source.name,
        "base": source.model if source.adapter else None,
        "fingerprint": source.engine.fingerprint("tuned"),
        "template": source.engine.template.name,
        **result.details,
        "checks": [check.to_json() for check in result.checks],
        "files": {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.is_file()},
    }
    atomic_write(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=2) + "\n")


def save_tokenizer(source: Source, folder: Path) -> None:
    """Tokenizer files with the engine's chat template, and generation settings that stop where the engine stops.

    The base model's own sampling settings are kept.
    """
    from transformers import GenerationConfig

    tokenizer, engine = source.engine.tokenizer, source.engine
    original = tokenizer.chat_template
    tokenizer.chat_template = engine.template.source
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template = original
    own: GenerationConfig | None = engine.model.generation_config
    settings = own.to_diff_dict() if own is not None else {}
    settings["eos_token_id"] = list(engine.encoder.stop_ids)
    settings["pad_token_id"] = (
        tokenizer.pad_token_id if tokenizer.pad_token_id is not None else settings.get("pad_token_id")
    )
    settings.pop("transformers_version", None)
    GenerationConfig(**{key: value for key, value in settings.items() if value is not None}).save_pretrained(folder)


def save_merged(source: Source, folder: Path, dtype: str) -> None:
    """The tuned weights as safetensors in this type, with config.json and the tokenizer files."""
    import torch

    engine, torch_dtype = source.engine, getattr(torch, dtype)
    engine.weights.use("tuned")
    model = engine.model
    original = model.config.dtype
    state = {name: value.to(torch_dtype) for name, value in model.state_dict().items()}
    model.config.dtype = torch_dtype
    try:
        model.save_pretrained(folder, state_dict=state)
    finally:
        model.config.dtype = original
    save_tokenizer(source, folder)


def own_dtype(model: str, revision: str = "main") -> str:
    """The type that a model's weights are stored in, as its config.json says; float32 where it does not."""
    file = Path(model) / "config.json"
    if not file.exists():  # a hub's name: loading the model reports what is wrong with it
        from transformers.utils import cached_file

        try:
            file = Path(str(cached_file(model, "config.json", revision=revision)))
        except (OSError, ValueError):
            return "float32"
    config = read_json_object(file)
    inner = config.get("text_config")
    inner = inner if isinstance(inner, dict) else {}
    found = config.get("dtype") or config.get("torch_dtype") or inner.get("dtype") or inner.get("torch_dtype")
    return str(found or "float32")
