"""Estimates the memory of a training step from the model's shape and the settings; measures nothing."""

from __future__ import annotations

from sartor.base.config import RunConfig
from sartor.model.shape import MAX_SHORT_TOKENS, Shape
from sartor.training.optimizers import OPTIMIZERS

FRAGMENTATION = 1.25
"""Blocks that the allocator cannot reuse, masks and small buffers, relative to what the formulas count."""


def static_bytes(shape: Shape, config: RunConfig, width: int, reference: bool) -> float:
    """Weights, gradients and optimizer state; `width` is the bytes of a number, `reference` adds a second model."""
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
    number_bytes = 2.0 if train.pure_bf16 else 4.0
    state_bytes = OPTIMIZERS.get(train.optim).state_bytes(number_bytes)
    trained_bytes = trained * (2 * number_bytes + state_bytes)  # the weight, its gradient, the optimizer's state
    if method.finetuning_type != "lora" and train.pure_bf16:
        trained_bytes -= trained * number_bytes  # already counted with the weights
    return weights * (2 if reference else 1) + trained_bytes


def activation_bytes_per_token(
    shape: Shape, width: int, longest: int, device: str, gradient_checkpointing: bool
) -> float:
    """Bytes that one token keeps from the forward to the backward pass.

    A layer keeps the inputs of its norms and products, queries, keys and values before and after rotation, and the
    two halves of the feed-forward with their product. With gradient checkpointing it keeps only its own input, and one
    layer at a time has the rest.
    """
    layer = width * (4.0 * shape.hidden + 3.0 * shape.query_width + 4.0 * shape.key_width + 4.0 * shape.ffn_width)
    if device == "cpu" and longest <= MAX_SHORT_TOKENS:
        layer += (4.0 + width) * shape.heads * longest
    if gradient_checkpointing:
        return FRAGMENTATION * (layer + width * shape.hidden * shape.layers)
    return FRAGMENTATION * layer * shape.layers
