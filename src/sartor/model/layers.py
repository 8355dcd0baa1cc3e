"""Finds the decoder layers of a model."""

from __future__ import annotations

from typing import Any

from torch import nn


def decoder_layers(model: Any) -> list[nn.Module]:
    """The decoder layers, first to last; empty if they are not in an nn.ModuleList."""
    count = model.config.get_text_config().num_hidden_layers
    for layers in (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count):
        return list(layers)
    return []
