"""What is taken home and what came of it: the engine with its adapter, the folder, the files; writes no format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartor.base.config import RunConfig
from sartor.base.errors import ExportError
from sartor.base.files import atomic_write, disk_error, move_to_trash, sha256_file
from sartor.inference.engine import Engine

RECORD = "export.json"
"""Stands in every export; a folder that holds it may be replaced."""


@dataclass(frozen=True, slots=True)
class Source:
    """A loaded model (base and tuned in one engine), where its parts lie, and what to call it.

    The engine holds float32 where the form stores other numbers than the model does, else the model's own type.
    """

    engine: Engine
    config: RunConfig
    """The settings that the engine was loaded by, with the model's own folder."""
    adapter: Path | None
    name: str

    @property
    def model(self) -> str:
        """The folder of the base model, or of the fully tuned one."""
        return self.config.model.model_name_or_path


@dataclass(frozen=True, slots=True)
class Check:
    """One exported form beside the adapter over the base in float32, at every position of eight prompts' answers."""

    form: str
    prompts: int
    positions: int
    agreement: float
    """The share of positions, 0–1, at which both take the same token."""
    largest: float
    """The largest difference of log-probability (nats) among the reference's likeliest tokens (see `_check`)."""
    limit: float
    min_agreement: float
    """The smallest agreement allowed."""
    where: str
    """Prompt, position and token of the largest difference."""

    @property
    def holds(self) -> bool:
        return self.largest <= self.limit and self.agreement >= self.min_agreement

    def __str__(self) -> str:
        return (
            f"{self.form}: {self.agreement:.1%} of {self.positions} tokens agree (at least {self.min_agreement:.0%}), "
            f"largest logit difference {self.largest:.4f} (limit {self.limit:g})"
        )


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export."""

    folder: Path
    files: tuple[Path, ...]
    checks: tuple[Check, ...]


@contextmanager
def exported_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into; it takes `out`'s place only when nothing is raised.

    An earlier export there goes to the trash. Raises: ExportError when `out` holds anything else.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).exists())):
        raise ExportError("The folder is not empty and holds no export.", str(out), "Choose another with --out.")
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise disk_error(error, out) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if out.exists():
        if any(out.iterdir()):
            move_to_trash(out)
        else:
            out.rmdir()
    aside.rename(out)


def write_record(folder: Path, form: str, source: Source, checks: tuple[Check, ...], **more: Any) -> None:
    """What this export is, of what, and how it compared; with the hash of every file."""
    record: Mapping[str, Any] = {
        "form": form,
        "name": source.name,
        "base": source.model if source.adapter else None,
        "fingerprint": source.engine.fingerprint("tuned"),
        "template": source.engine.template.name,
        **more,
        "checks": [
            {
                "form": c.form,
                "prompts": c.prompts,
                "positions": c.positions,
                "agreement": round(c.agreement, 6),
                "largest": round(c.largest, 6),
                "limit": c.limit,
                "min_agreement": c.min_agreement,
                "where": c.where,
            }
            for c in checks
        ],
        "files": {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.is_file()},
    }
    atomic_write(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=2) + "\n")


def save_tokenizer(source: Source, folder: Path) -> None:
    """Tokenizer files, with the template that the engine answers by, and generation settings that stop where it does.

    The base model's own sampling settings are kept.
    """
    from transformers import GenerationConfig

    tokenizer, engine = source.engine.tokenizer, source.engine
    before = tokenizer.chat_template
    tokenizer.chat_template = engine.template.source
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template = before
    own = getattr(engine.model, "generation_config", None)
    settings = own.to_diff_dict() if own is not None else {}
    settings["eos_token_id"] = list(engine.encoder.stop_ids)
    settings["pad_token_id"] = (
        tokenizer.pad_token_id if tokenizer.pad_token_id is not None else settings.get("pad_token_id")
    )
    settings.pop("transformers_version", None)
    GenerationConfig(**{key: value for key, value in settings.items() if value is not None}).save_pretrained(folder)


def own_dtype(model: str) -> str:
    """The type that a model's weights are stored in, as its config.json says; float32 where it does not."""
    config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    inner = config.get("text_config", {})
    found = config.get("dtype") or config.get("torch_dtype") or inner.get("dtype") or inner.get("torch_dtype")
    return str(found or "float32")
