"""The adapter as it was trained, with the tokenizer, template and generation settings that belong to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sartor.base.errors import ExportError
from sartor.base.files import atomic_write, fsync_file
from sartor.exporters._parity import ReferenceAnswers, ask_folder
from sartor.exporters._source import Exported, Source, exported_folder, save_tokenizer, write_record

LIMIT, LEAST = 1e-4, 1.0
EXAMPLES = {"to": "adapter", "files": ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json")}


def export(source: Source, out: Path, **options: Any) -> Exported:
    """Copy the adapter. Raises: ExportError when the run has none."""
    if source.adapter is None:
        raise ExportError("There is no adapter: all weights were trained.", source.name, "Write --to merged.")
    reference = ReferenceAnswers.of(source)
    with exported_folder(out) as folder:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(source.adapter / name, folder / name)
            fsync_file(folder / name)
        (folder / "adapter_model.safetensors").chmod(0o644)
        save_tokenizer(source, folder)
        _name_base(folder / "adapter_config.json", source.model)
        checks = (reference.check("adapter", ask_folder(folder, source, over_base=True), LIMIT, LEAST),)
        write_record(folder, "adapter", source, checks)
    return Exported(out, tuple(sorted(out.iterdir())), checks)


def _name_base(path: Path, model: str) -> None:
    """The base by the name or path that it was loaded from, so that peft finds it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    atomic_write(path, json.dumps({**config, "base_model_name_or_path": model}, indent=2) + "\n")
