"""Adapter: the trained LoRA matrices with their tokenizer, template and generation settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sartor.base.errors import ExportError
from sartor.base.files import atomic_write, fsync_file
from sartor.base.i18n import tr
from sartor.exporters import Exporter, ExportOptions, ExportResult, Source, Tolerance
from sartor.exporters._output import save_tokenizer

TOLERANCE = Tolerance(1e-4, 1.0)


class _Adapter(Exporter):
    name = "adapter"
    label = tr("Adapter only (LoRA)")
    description = tr("A few megabytes that go on top of the base model.")
    self_check = "always"
    example_files = ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json")

    def export(self, source: Source, folder: Path, options: ExportOptions) -> ExportResult:
        """Copy the adapter. Raises: ExportError when the model has none."""
        if source.adapter is None:
            raise ExportError("No adapter to export: all weights were trained.", source.name, "Use --to merged.")
        from sartor.exporters._parity import ReferenceAnswers, probe_folder

        reference = ReferenceAnswers.of(source)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(source.adapter / name, folder / name)
            fsync_file(folder / name)
        save_tokenizer(source, folder)
        _set_base(folder / "adapter_config.json", source.model)
        check = reference.check("adapter", probe_folder(folder, source, over_base=True), TOLERANCE)
        return ExportResult((check,))


def _set_base(path: Path, model: str) -> None:
    """The base by the name or path that it was loaded from, so that peft finds it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    atomic_write(path, json.dumps({**config, "base_model_name_or_path": model}, indent=2) + "\n")


PLUGIN = _Adapter()
