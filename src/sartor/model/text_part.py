"""The language model within a checkpoint: the class that loads it, its decoder, and what else the checkpoint holds."""

from __future__ import annotations

from typing import Any

from torch import nn


def text_class(config: Any) -> Any:
    """transformers' auto class whose model generates text from this config.

    A vision-language model is loaded whole where its text-only class would not take the vision tower's weights.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = type(config)
    causal = AutoModelForCausalLM._model_mapping
    vision = AutoModelForImageTextToText._model_mapping
    if kind not in vision or not getattr(config, "vision_config", None):
        return AutoModelForCausalLM
    if kind in causal:
        text_only = causal[kind].config_class is not kind
        if not text_only or causal[kind]._keys_to_ignore_on_load_unexpected:
            return AutoModelForCausalLM
    return AutoModelForImageTextToText


def backbone(causal: Any) -> Any:
    """The model without its head; some families name it otherwise than transformers' own `base_model` expects."""
    base = causal.base_model
    return getattr(causal, "model", base) if base is causal else base


def text_decoder(causal: Any) -> Any:
    """The part that reads text: of a vision-language model its language model, else the model without its head."""
    base = backbone(causal)
    part = getattr(base, "language_model", getattr(base, "text_model", base))
    has_head = part is not causal and part.get_output_embeddings() is not None  # Llama 4
    return part.model if has_head else part


def outside(causal: Any) -> list[str]:
    """The names of modules that text never passes through: vision and audio towers, projectors, and layers that look
    at images alone."""
    decoder = text_decoder(causal)
    if decoder is backbone(causal):
        return []
    kept = {id(module) for module in decoder.modules()}
    heads = [causal.get_output_embeddings(), getattr(causal, "score", None)]
    kept |= {id(module) for head in heads if head is not None for module in head.modules()}
    for layer in decoder.modules():
        if hasattr(layer, "cross_attn"):
            kept -= {id(module) for module in layer.modules()}
    return [
        name
        for name, module in causal.named_modules()
        if id(module) not in kept and not any(id(part) in kept for part in module.modules())
    ]


def freeze_outside(causal: Any) -> None:
    """Train no weight that text never passes through: it would get no gradient."""
    for name in outside(causal):
        module: nn.Module = causal.get_submodule(name)
        module.requires_grad_(False)
