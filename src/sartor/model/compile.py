"""Compiles a model's decoder layers with torch.compile, if the compiler works on this machine."""

from __future__ import annotations

import subprocess
from typing import Any

import torch
from torch import nn

from sartor.model.layers import decoder_layers


def compile_blocks(model: nn.Module, device: torch.device) -> str | None:
    """Compile each decoder layer on its first call; return why nothing was compiled, or None.

    Graph breaks are allowed, so code that cannot be compiled runs eagerly. The rest of the model (embedding, head,
    loss) is not compiled: it is a small part of a step, and its shapes change with every batch.
    """
    if why := _missing(device):
        return why
    for layer in decoder_layers(model):
        layer.compile(dynamic=True, fullgraph=False)
    return None


def _missing(device: torch.device) -> str | None:
    """Compile a small function, forward and backward; return the error in one line, or None."""

    def probe(x: torch.Tensor) -> torch.Tensor:
        return (x.sin() * 2 + x).sum()

    made: Any = torch.compile(probe, dynamic=True)
    try:
        made(torch.ones(8, device=device, requires_grad=True)).backward()
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return f"the compiler does not work here ({reason[0][:200]})"
    finally:
        torch._dynamo.reset()
    return None
