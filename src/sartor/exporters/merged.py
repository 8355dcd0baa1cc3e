"""Merged: one ordinary model folder, merged in float32 and stored in the model's own type, that any program reads."""

from __future__ import annotations

from pathlib import Path

from sartor.base.i18n import tr
from sartor.exporters import Exporter, ExportOptions, ExportResult, Source, Tolerance
from sartor.exporters._output import save_merged

TOLERANCES = {
    "bfloat16": Tolerance(0.75, 0.9),
    "float16": Tolerance(0.25, 0.95),
    "float32": Tolerance(5e-3, 0.99),
}
"""By the type stored, coarse to precise: float16 rounds eight times finer than bfloat16.

Rounding once to bfloat16 moved the logits of a SmolLM2-135M tuned for 60 steps by 0.12. After 8 steps it was 3.4: most
of the updates were smaller than half a bfloat16 step of their weights and vanished. The next type is tried then.
"""
FIX = tr(
    "Sixteen bits lose part of the training: add --dtype float32 (or float16, which rounds eight times finer than "
    "bfloat16); --to gguf rounds less too, and --to adapter loses nothing."
)


class _Merged(Exporter):
    name = "merged"
    label = tr("Whole model (safetensors)")
    description = tr("Base and adapter in one model: for transformers, vLLM and most others.")
    dtypes = tuple(TOLERANCES)
    self_check = "always"
    example_files = ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json")

    def export(self, source: Source, folder: Path, options: ExportOptions) -> ExportResult:
        """Merge and save. Raises: ExportError when the folder answers differently from the adapter over its base."""
        from sartor.exporters._parity import ReferenceAnswers, probe_folder

        dtype = options.dtype
        reference = ReferenceAnswers.of(source)
        save_merged(source, folder, dtype)
        check = reference.check("merged", probe_folder(folder, source), TOLERANCES[dtype], FIX)
        return ExportResult((check,), {"dtype": dtype})


PLUGIN = _Merged()
