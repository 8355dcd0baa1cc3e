"""One plain model folder: the adapter merged in float32, stored in the model's own type; any program reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sartor.use.exporters._check import Reference, ask_folder
from sartor.use.exporters._source import Exported, Source, exported_folder, own_dtype, save_tokenizer, write_record

LIMITS = {"float32": (5e-3, 0.99), "float16": (0.25, 0.95), "bfloat16": (0.75, 0.9)}
"""Type → largest logit difference, smallest agreement. Rounding once to bfloat16 moved SmolLM2-135M's by 0.12."""
EXAMPLES = {"to": "merged", "files": ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json")}


def export(source: Source, out: Path, **options: Any) -> Exported:
    """Merge and save. Raises: ExportError when the folder answers differently from the adapter over its base."""
    reference = Reference.of(source)
    with exported_folder(out) as folder:
        dtype = save_merged(source, folder)
        checks = (reference.compare("merged", ask_folder(folder), *LIMITS[dtype]),)
        write_record(folder, "merged", source, checks, dtype=dtype)
    return Exported(out, tuple(sorted(out.iterdir())), checks)


def save_merged(source: Source, folder: Path) -> str:
    """The tuned weights as the engine answers with them, and all that belongs beside them. Returns their type."""
    dtype = own_dtype(source.model)
    dtype = dtype if dtype in LIMITS else "float32"
    engine = source.engine
    engine.weights.use("tuned")
    model = engine.model
    before = model.config.dtype
    state = {name: value.to(getattr(torch, dtype)) for name, value in model.state_dict().items()}
    model.config.dtype = getattr(torch, dtype)
    try:
        model.save_pretrained(folder, state_dict=state)
    finally:
        model.config.dtype = before
    save_tokenizer(source, folder)
    return dtype
