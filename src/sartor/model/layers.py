"""Finds the decoder layers of a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from sartor.model.text_part import text_decoder


def decoder_layers(model: Any) -> list[nn.Module]:
    """The decoder layers, first to last; empty if they are not in an nn.ModuleList."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    count = model.config.get_text_config().num_hidden_layers
    for layers in (m for m in text_decoder(causal).modules() if isinstance(m, nn.ModuleList) and len(m) == count):
        return list(layers)
    return []
