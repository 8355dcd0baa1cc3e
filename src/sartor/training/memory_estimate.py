"""The memory that a training step takes, from a model's shape and the settings; measures nothing."""

from __future__ import annotations

from sartor.base.config import RunConfig
from sartor.model.shape import MAX_SHORT_TOKENS, Shape

FRAGMENTATION = 1.25
"""Blocks that the allocator cannot use again, masks and small buffers, over what the formulas count."""
OPTIMIZER_BYTES = {"adafactor": 0.1, "muon": 4.0, "adamw_8bit": 2.1, "adamw_bnb_8bit": 2.1}
"""State of one trained weight; AdamW's 8 otherwise (two float32 moments)."""


def static_bytes(shape: Shape, config: RunConfig, width: int, reference: bool) -> float:
    """Weights, gradients and optimizer state; `width` is the bytes of a number, `reference` a second model."""
    method, train, bits = config.method, config.train, config.model.quantization_bit
    linear = shape.layers * shape.layer_weights
    weights = width * (shape.weights - linear) + (1.1 * bits / 8 if bits else width) * linear
    trained: float = {
        "lora": shape.lora_weights(method.lora_rank),
        "full": shape.weights,
        "freeze": min(abs(method.freeze_trainable_layers), shape.layers) * shape.layer_weights,
    }[method.finetuning_type]
    if "embed_tokens" in method.additional_target or "lm_head" in method.additional_target:
        trained += shape.vocab_size * shape.hidden
    state = OPTIMIZER_BYTES.get(train.optim, 4.0 if train.pure_bf16 else 8.0)
    number = 2.0 if train.pure_bf16 else 4.0
    moving = trained * (2 * number + state)  # itself, its gradient, the optimizer's
    if method.finetuning_type != "lora" and train.pure_bf16:
        moving -= trained * number  # counted with the weights
    return weights * (2 if reference else 1) + moving


def activation_bytes_per_token(
    shape: Shape, width: int, longest: int, device: str, gradient_checkpointing: bool
) -> float:
    """What one token keeps from the forward to the backward pass.

    A layer keeps the inputs of its norms and products, queries, keys and values before and after rotation, and the
    two halves of the feed-forward with their product; recomputed, only its own input, and one layer at a time is whole.
    """
    layer = width * (4.0 * shape.hidden + 3.0 * shape.query_width + 4.0 * shape.key_width + 4.0 * shape.ffn_width)
    if device == "cpu" and longest <= MAX_SHORT_TOKENS:
        layer += (4.0 + width) * shape.heads * longest
    if gradient_checkpointing:
        return FRAGMENTATION * (layer + width * shape.hidden * shape.layers)
    return FRAGMENTATION * layer * shape.layers
