"""A GGUF file and a Modelfile with the template and the stops that belong to it: `ollama create NAME -f Modelfile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sartor.base.files import atomic_write
from sartor.exporters import gguf
from sartor.exporters._go_template import GoTemplate
from sartor.exporters._source import Exported, Source, exported_folder, write_record
from sartor.exporters._vocabulary import Vocabulary

PRECISE = True
"""Rounded from the merge in float32, never from bfloat16."""
EXAMPLES = {"to": "ollama", "files": ("Modelfile", "model-q8_0.gguf")}


def export(source: Source, out: Path, *, quant: str = "q8_0", check: bool = True, **options: Any) -> Exported:
    """Write both. Raises: ExportError for a template that Ollama's language cannot say, and as `gguf` does."""
    text = modelfile(source, f"{source.name}-{quant}.gguf")
    with exported_folder(out) as folder:
        path = folder / f"{source.name}-{quant}.gguf"
        gguf.write(source, path, quant)
        checks = (gguf.verify(source, path, quant),) if check else ()
        atomic_write(folder / "Modelfile", text)
        write_record(folder, "ollama", source, checks, quant=quant)
    return Exported(out, tuple(sorted(out.iterdir())), checks)


def modelfile(source: Source, file: str) -> str:
    """The Modelfile's text. Raises: ExportError."""
    engine = source.engine
    tokenizer = engine.tokenizer
    vocabulary = Vocabulary.of(tokenizer, engine.model.config.get_text_config().vocab_size)
    template = GoTemplate.of(engine.template, skip=str(tokenizer.bos_token) if vocabulary.adds_bos else "")
    stops = [tokenizer.decode([id]) for id in engine.encoder.stop_ids]
    lines = [f"FROM ./{file}", f'TEMPLATE """{template.source()}"""', *(f'PARAMETER stop "{s}"' for s in stops)]
    return "\n".join(lines) + "\n"
