"""Our own ways through a model (head, fused operations, attention, rows without padding), and how each is turned off.

A shortcut may only replace what it reproduces; `loss_check` compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, get_args

from sartor.model import attention, head, kernels

Shortcut: TypeAlias = Literal["unpadded", "attention", "kernels", "head"]
SHORTCUTS: tuple[Shortcut, ...] = get_args(Shortcut)


def turn_off(model: Any, shortcuts: Iterable[str]) -> None:
    """Compute without these from now on, as the model's own code does."""
    causal = head.causal_model(model)
    for name in shortcuts:
        if name in ("unpadded", "attention"):
            head.PADDED.add(causal)
        if name == "attention":
            attention.use(causal, "sdpa")
        elif name == "kernels":
            for module in kernels.fused_modules(model):
                del module.forward
        elif name == "head":
            head.WHOLE.add(causal)


def prepare(model: Any, off: Iterable[str]) -> None:
    """Turn these off, and find out what else the loss needs to know of the model while its weights are whole."""
    turn_off(model, off)
    causal = head.causal_model(model)
    if causal.get_output_embeddings() is not None:
        head.is_plain(causal)


@contextmanager
def without(model: Any, shortcuts: Iterable[str]) -> Iterator[None]:
    """While the block runs, these are off; then all is as it was."""
    causal = head.causal_model(model)
    padded, whole = causal in head.PADDED, causal in head.WHOLE
    ours = causal.config.get_text_config()._attn_implementation == attention.NAME
    fused = [(module, module.forward) for module in kernels.fused_modules(model)]
    turn_off(model, shortcuts)
    try:
        yield
    finally:
        for module, forward in fused:
            module.forward = forward
        if ours:
            attention.use(causal, attention.NAME)
        for models, was in ((head.PADDED, padded), (head.WHOLE, whole)):
            (models.add if was else models.discard)(causal)


def in_use(model: Any) -> list[Shortcut]:
    """Those that this model's loss is computed with now."""
    causal = head.causal_model(model)
    ours = causal.config.get_text_config()._attn_implementation == attention.NAME
    used: dict[Shortcut, bool] = {
        "unpadded": attention.takes_rows(causal) and causal not in head.PADDED,
        "attention": ours,
        "kernels": bool(kernels.fused_modules(model)),
        "head": causal not in head.WHOLE,
    }
    return [name for name in SHORTCUTS if used[name]]
