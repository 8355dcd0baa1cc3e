"""A model's shapes, and the memory that a step over them takes; loads nothing and measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sartor.base.config import RunConfig

SLACK = 1.25
"""Blocks that the allocator cannot use again, masks and small buffers, over what the formulas count."""
OPTIMIZER_BYTES = {"adafactor": 0.1, "muon": 4.0, "adamw_8bit": 2.1, "adamw_bnb_8bit": 2.1}
"""State of one trained weight; AdamW's 8 otherwise (two float32 moments)."""
SHORT_TOKENS = 192
"""Up to this length a CPU keeps each head's attention weights (`attention.short_attention`)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What counts of a decoder's config."""

    layers: int
    hidden: int
    wide: int
    """The feed-forward width; of all experts that a token passes through."""
    heads: int
    query: int
    """All query heads together."""
    key: int
    """All key heads together (values are as wide)."""
    vocabulary: int
    tied: bool
    experts: int = 1

    @classmethod
    def of(cls, config: Any) -> Shape:
        """From a transformers config. Raises: AttributeError when it is no decoder's."""
        text = config.get_text_config()
        heads = text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // heads
        experts = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or 1
        active = getattr(text, "num_experts_per_tok", None) or 1
        wide = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
        return cls(
            text.num_hidden_layers,
            text.hidden_size,
            wide * (active if experts > 1 else 1),
            heads,
            heads * head,
            (getattr(text, "num_key_value_heads", None) or heads) * head,
            text.vocab_size,
            bool(getattr(config, "tie_word_embeddings", False)),
            max(1, experts // active),
        )

    @property
    def layer_weights(self) -> int:
        return self.hidden * (2 * self.query + 2 * self.key + 3 * self.wide * self.experts + 2)

    @property
    def weights(self) -> int:
        return self.layers * self.layer_weights + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def lora_weights(self, rank: int) -> int:
        """With every linear layer a target."""
        sums = (self.hidden + self.query) * 2 + (self.hidden + self.key) * 2 + (self.hidden + self.wide) * 3
        return self.layers * rank * sums


def standing_bytes(shape: Shape, config: RunConfig, width: int, reference: bool) -> float:
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
        trained += shape.vocabulary * shape.hidden
    state = OPTIMIZER_BYTES.get(train.optim, 4.0 if train.pure_bf16 else 8.0)
    number = 2.0 if train.pure_bf16 else 4.0
    moving = trained * (2 * number + state)  # itself, its gradient, the optimizer's
    if method.finetuning_type != "lora" and train.pure_bf16:
        moving -= trained * number  # counted with the weights
    return weights * (2 if reference else 1) + moving


def token_bytes(shape: Shape, width: int, longest: int, device: str, recompute: bool) -> float:
    """What one token keeps from the forward to the backward pass.

    A layer keeps the inputs of its norms and products, queries, keys and values before and after rotation, and the
    two halves of the feed-forward with their product; recomputed, only its own input, and one layer at a time is whole.
    """
    layer = width * (4.0 * shape.hidden + 3.0 * shape.query + 4.0 * shape.key + 4.0 * shape.wide)
    if device == "cpu" and longest <= SHORT_TOKENS:
        layer += (4.0 + width) * shape.heads * longest
    if recompute:
        return SLACK * (layer + width * shape.hidden * shape.layers)
    return SLACK * layer * shape.layers
