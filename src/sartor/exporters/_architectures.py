"""Model architectures in llama.cpp: the metadata each needs, and how its tensors differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from torch import Tensor

from sartor.base.errors import ExportError


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of llama.cpp: its own metadata, and how a tensor is converted."""

    arch: gguf.MODEL_ARCH
    rotates_pairs: bool = False
    """Query and key rows in the order of the original Llama (pairs), not transformers' (halves)."""
    norms_from_zero: bool = False
    """transformers stores w of a norm that multiplies by 1 + w; llama.cpp stores 1 + w."""
    more: Callable[[gguf.GGUFWriter, Any], None] = lambda writer, config: None

    def tensor(self, name: str, value: Tensor, config: Any) -> Tensor:
        """The tensor as llama.cpp reads it."""
        if self.norms_from_zero and name.endswith("norm.weight"):
            return value.float() + 1.0
        if self.rotates_pairs and ".self_attn." in name and name.rpartition(".")[0].endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            return value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
        return value


def family_of(config: Any) -> Family:
    """The architecture of a transformers config. Raises: ExportError naming the supported ones."""
    if config.model_type not in FAMILIES:
        raise ExportError(
            "GGUF export does not support models of type {type!r}.",
            "config.json",
            "Supported: {supported}. For others, use --to merged and llama.cpp's own converter.",
            type=config.model_type,
            supported=", ".join(sorted(FAMILIES)),
        )
    return FAMILIES[config.model_type]


def write_sizes(writer: gguf.GGUFWriter, config: Any, family: Family) -> None:
    """Sizes and rotary embedding, which every family has, then the family's own metadata. Raises: ExportError."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _write_rope(writer, _rope(config, "full_attention"))
    family.more(writer, config)


def rope_factors(config: Any) -> Tensor | None:
    """Llama 3.1's divisors of the rotary frequencies [head_dim / 2], which GGUF holds as a tensor; None for others."""
    rope = _rope(config, "full_attention")
    if rope["rope_type"] != "llama3":
        return None
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    frequency = 1.0 / rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    wavelength, context = 2 * math.pi / frequency, rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = ((context / wavelength - low) / (high - low)).clamp(0.0, 1.0)
    factors: Tensor = 1.0 / ((1.0 - smooth) / rope["factor"] + smooth)
    return factors


def _rope(config: Any, layer_type: str) -> Mapping[str, Any]:
    rope = config.rope_parameters
    chosen: Mapping[str, Any] = rope.get(layer_type, rope)
    return chosen


def _write_rope(writer: gguf.GGUFWriter, rope: Mapping[str, Any]) -> None:
    writer.add_rope_freq_base(rope["rope_theta"])
    match rope["rope_type"]:
        case "default" | "llama3":
            pass
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        case "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope["factor"])
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        case other:
            raise ExportError(
                "GGUF export does not support rotary scaling {type!r}.", "config.json", "Use --to merged.", type=other
            )


def _gemma_2(writer: gguf.GGUFWriter, config: Any) -> None:
    _plain_attention_scale(config)
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_sliding_window(config.sliding_window)


def _gemma_3(writer: gguf.GGUFWriter, config: Any) -> None:
    _plain_attention_scale(config)
    writer.add_sliding_window(config.sliding_window)
    local = config.rope_parameters.get("sliding_attention", config.rope_parameters)
    writer.add_rope_freq_base_swa(local["rope_theta"])
    if config.layer_types != [
        "full_attention" if n % 6 == 5 else "sliding_attention" for n in range(config.num_hidden_layers)
    ]:
        raise ExportError(
            "llama.cpp requires every sixth layer of Gemma 3 to be global.", "layer_types", "Use --to merged."
        )


def _plain_attention_scale(config: Any) -> None:
    """llama.cpp takes 1/√head_dim for every Gemma except the 27B ones, known by their number of layers."""
    if config.query_pre_attn_scalar != config.head_dim and config.num_hidden_layers not in (46, 62):
        raise ExportError("llama.cpp cannot represent this query_pre_attn_scalar.", "config.json", "Use --to merged.")


FAMILIES: Mapping[str, Family] = {
    "llama": Family(gguf.MODEL_ARCH.LLAMA, rotates_pairs=True),
    "mistral": Family(gguf.MODEL_ARCH.LLAMA, rotates_pairs=True),
    "qwen2": Family(gguf.MODEL_ARCH.QWEN2),
    "qwen3": Family(gguf.MODEL_ARCH.QWEN3),
    "gemma": Family(gguf.MODEL_ARCH.GEMMA, norms_from_zero=True),
    "gemma2": Family(gguf.MODEL_ARCH.GEMMA2, norms_from_zero=True, more=_gemma_2),
    "gemma3_text": Family(gguf.MODEL_ARCH.GEMMA3, norms_from_zero=True, more=_gemma_3),
}
"""`model_type` of config.json → family."""
