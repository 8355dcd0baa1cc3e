"""Ollama: a GGUF file and a Modelfile with its template and stops, for `ollama create NAME -f Modelfile`."""

from __future__ import annotations

from pathlib import Path

from sartor.base.files import atomic_write
from sartor.base.i18n import tr
from sartor.exporters import Exporter, ExportOptions, ExportResult, Source
from sartor.exporters.gguf import file_name, write_checked


class _Ollama(Exporter):
    name = "ollama"
    label = tr("Ollama")
    description = tr("A GGUF file with the Modelfile that Ollama reads.")
    quants = ("q8_0", "f16", "q4_0")
    needs_float32 = True
    self_check = "optional"
    example_files = ("Modelfile", "model-q8_0.gguf")

    def export(self, source: Source, folder: Path, options: ExportOptions) -> ExportResult:
        """Raises: ExportError for a template that Ollama's language cannot express, and as `gguf` does."""
        text = modelfile(source, file_name(source, options))
        checks = write_checked(source, folder, options)
        atomic_write(folder / "Modelfile", text)
        return ExportResult(checks, {"quant": options.quant})


def modelfile(source: Source, file: str) -> str:
    """The Modelfile's text for a GGUF file of that name. Raises: ExportError."""
    from sartor.exporters._go_template import GoTemplate
    from sartor.exporters._vocabulary import Vocabulary

    engine = source.engine
    tokenizer = engine.tokenizer
    vocabulary = Vocabulary.of(tokenizer, engine.model.config.get_text_config().vocab_size)
    template = GoTemplate.of(engine.template, skip=str(tokenizer.bos_token) if vocabulary.adds_bos else "")
    stops = [tokenizer.decode([id]) for id in engine.encoder.stop_ids]
    lines = [f"FROM ./{file}", f'TEMPLATE """{template.source()}"""', *(f'PARAMETER stop "{s}"' for s in stops)]
    return "\n".join(lines) + "\n"


PLUGIN = _Ollama()
