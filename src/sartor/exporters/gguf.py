"""GGUF: one file with weights, tokenizer and chat template, for llama.cpp and programs built on it."""

from __future__ import annotations

from pathlib import Path

from sartor.base.i18n import tr
from sartor.exporters import Check, Exporter, ExportOptions, ExportResult, Source, Tolerance

TOLERANCES = {"f16": Tolerance(1.0, 0.9), "q8_0": Tolerance(3.0, 0.8), "q4_0": Tolerance(15.0, 0.4)}
"""By quantization. Measured with a tuned SmolLM2-135M: 0.12 and 99 % (f16), 0.88 and 97 % (q8_0), 8.7 and 66 % (q4_0);
four bits hurt small models.
"""


class _Gguf(Exporter):
    name = "gguf"
    label = tr("GGUF for llama.cpp")
    description = tr("One file for llama.cpp, LM Studio and similar programs; smaller with q8_0 or q4_0.")
    quants = tuple(TOLERANCES)
    needs_float32 = True
    self_check = "optional"
    example_files = ("model-f16.gguf",)

    def export(self, source: Source, folder: Path, options: ExportOptions) -> ExportResult:
        """Write `<name>-<quant>.gguf`; llama.cpp must tokenize, render and answer alike."""
        return ExportResult(write_checked(source, folder, options), {"quant": options.quant})


def write_checked(source: Source, folder: Path, options: ExportOptions) -> tuple[Check, ...]:
    """The GGUF file, and llama.cpp's answers compared if the options say so. Raises: ExportError."""
    from sartor.exporters import _gguf_file

    path = folder / file_name(source, options)
    _gguf_file.write(source, path, options.quant)
    return (_gguf_file.verify(source, path, options.quant, TOLERANCES[options.quant]),) if options.check else ()


def file_name(source: Source, options: ExportOptions) -> str:
    return f"{source.name}-{options.quant}.gguf"


PLUGIN = _Gguf()
