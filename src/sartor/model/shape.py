"""The sizes of a decoder, from its config: layers, widths, heads; loads no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_SHORT_TOKENS = 192
"""Up to this many tokens, attention on a CPU keeps the weights of each head (`attention.short_attention`)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that memory and time depend on."""

    layers: int
    hidden: int
    ffn_width: int
    """The feed-forward width; for experts, the sum over those that a token passes through."""
    heads: int
    query_width: int
    """The width of all query heads together."""
    key_width: int
    """The width of all key heads together; values are as wide."""
    vocab_size: int
    tied: bool
    experts: int = 1

    @classmethod
    def from_config(cls, config: Any) -> Shape:
        """From a transformers config. Raises: AttributeError if it is not a decoder's."""
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
        return self.hidden * (2 * self.query_width + 2 * self.key_width + 3 * self.ffn_width * self.experts + 2)

    @property
    def weights(self) -> int:
        return self.layers * self.layer_weights + self.vocab_size * self.hidden * (1 if self.tied else 2)

    def lora_weights(self, rank: int) -> int:
        """The number of LoRA weights with every linear layer as target."""
        sums = (
            (self.hidden + self.query_width) * 2
            + (self.hidden + self.key_width) * 2
            + (self.hidden + self.ffn_width) * 3
        )
        return self.layers * rank * sums
