"""One plain model folder: the adapter merged in float32, stored in the model's own type; any program reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sartor.base.errors import ExportError
from sartor.exporters._parity import ReferenceAnswers, ask_folder
from sartor.exporters._source import Exported, Source, exported_folder, own_dtype, save_tokenizer, write_record

LIMITS = {"float32": (5e-3, 0.99), "float16": (0.25, 0.95), "bfloat16": (0.75, 0.9)}
"""Type → largest logit difference, smallest agreement.

Rounding once to bfloat16 moved the logits of a SmolLM2-135M tuned for 60 steps by 0.12. After 8 steps it was 3.4: most
of the updates were smaller than half a bfloat16 step of their weights and vanished. That export fails, and should.
"""
FIX = (
    "Its sixteen bits lose part of what was trained: add --dtype float32 (or float16, which rounds eight times finer "
    "than bfloat16); --to gguf rounds less too, and --to adapter loses nothing."
)
EXAMPLES = {"to": "merged", "files": ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json")}


def export(source: Source, out: Path, *, dtype: str | None = None, **options: Any) -> Exported:
    """Merge and save. Raises: ExportError when the folder answers differently from the adapter over its base."""
    if dtype is not None and dtype not in LIMITS:
        raise ExportError(f"There is no type {dtype!r}.", "--dtype", f"There are: {', '.join(LIMITS)}.")
    reference = ReferenceAnswers.of(source)
    with exported_folder(out) as folder:
        dtype = save_merged(source, folder, dtype)
        checks = (reference.check("merged", ask_folder(folder, source), *LIMITS[dtype], fix=FIX),)
        write_record(folder, "merged", source, checks, dtype=dtype)
    return Exported(out, tuple(sorted(out.iterdir())), checks)


def save_merged(source: Source, folder: Path, dtype: str | None = None) -> str:
    """The tuned weights in the model's own type or the one asked for, and what belongs to them. Returns the type."""
    dtype = dtype or own_dtype(source.model)
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
