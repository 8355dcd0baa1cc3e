"""Where a model keeps its repeated blocks."""

from __future__ import annotations

from typing import Any

from torch import nn


def decoder_layers(model: Any) -> list[nn.Module]:
    """The model's repeated blocks, first to last; none where they are in no list."""
    count = model.config.get_text_config().num_hidden_layers
    for layers in (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count):
        return list(layers)
    return []
