"""Tiny random models of every causal family that transformers ships: named by its registry, sized by field names."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np

from sartor.base.types import TokenSequence

SIZES: tuple[tuple[str, int], ...] = (
    (r".*vocab_size|vocab_size_per_layer_input|encoder_hash_byte_group_vocab|ngram_vocab_size_base", 264),
    (r"hidden_size_per_layer_input|.*_rank|d_rel|hc_lowrank|router_hidden_size|dim_model_base", 16),
    (r"qk_nope_head_dim|qk_rope_head_dim|rotary_dim|mamba_n_heads|mamba_d_state|mamba_d_head|state_size", 8),
    (r"ssm_state_size|mamba_chunk_size|chunk_size|split_ngram_parts", 8),
    (r"(.*_)?hidden_size|d_model|n_embd|emb_dim|dim_model|.*embedding_size|mamba_d_ssm|.*_embed_dim", 64),
    (r".*intermediate_size(_mlp)?|.*ffn_dim|ffn_hidden_size|n_inner|dim_ff|dff|d_inner|feed_forward_size", 64),
    (r"num_hidden_layers|n_layers?|(num_)?(en|de)coder_layers|num_layers|text_depth|depth", 4),
    (r".*(num_key_value_heads|num_kv_heads|linear_num_key_heads)", 2),
    (r"(swa_)?num_attention_heads|n_heads?|num_heads|(num_)?(en|de)coder_attention_heads|attention_heads", 4),
    (r"index_n_heads|linear_num_value_heads|linear_num_heads|mamba_num_heads|encoder_hash_byte_group_nb_functions", 4),
    (r"(swa_|mamba_|index_|global_)?head_dim|dim_head|v_head_dim|linear_(key_|value_)?head_dim|kv_channels", 16),
    (r"num_experts|n_routed_experts|num_local_experts|moe_num_experts|zero_expert_num", 4),
    (r"num_experts_per_tok|moe_topk|moe_k|attn_layer_period|expert_layer_period|layer_group_size", 2),
    (r"n_group|topk_group|n_shared_experts|num_shared_experts|mamba_n_groups|n_groups|mamba_ngroups", 1),
    (r"first_k_dense_replace|num_dense_layers|num_mtp_layers|moe_layer_start_index|attn_layer_offset", 1),
    (r"sliding_window(_size)?|local_attention|attention_window_size|window_size|attention_chunk_size", 16),
    (r"keep_window_size|image_size|patch_size", 16),
    (r"index_topk", 64),  # of real models 2048; on longer rows transformers' choice of keys depends on padding
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|context_length|max_target_positions", 512),
)
"""The sizes of a tiny model, by patterns of field names; sliding windows are shorter than the rows of the tests."""

MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
HYBRID = ["linear_attention", "full_attention"] * 2
FIELDS: dict[str, dict[str, Any]] = {
    "axk2": {"num_key_value_heads": 4, "qk_rope_head_dim": 16},
    "bamba": {"attn_layer_indices": [1, 3]},
    "deepseek_v32": {"num_key_value_heads": 4, "qk_rope_head_dim": 16},
    "dots3_note": {"text_config": {"num_key_value_heads": 4}},
    "dots3_note_text": {"num_key_value_heads": 4},
    "glm_moe_dsa": {"num_key_value_heads": 4, "qk_rope_head_dim": 16},
    "glm4v": {"text_config": {"rope_parameters": MROPE}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "kimi_linear": {"layer_types": HYBRID},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"head_dim": 8},
    "mamba2": {"num_heads": 8},
    "xlstm": {"chunk_size": 64, "qk_dim_factor": 1.0},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "n_mamba_heads": 4},
    "zamba": {"num_hidden_layers": 8, "attention_hidden_size": 128},
    "zaya": {"num_experts_per_tok": 1},
    "qwen2_5_vl": {"text_config": {"rope_parameters": MROPE}},
    "reformer": {"is_decoder": True, "axial_pos_shape": [16, 32], "axial_pos_embds_dim": [32, 32]},
    "xmod": {"default_language": "en_XX", "is_decoder": True},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "phi4_multimodal": {"audio_config": {}},
}
"""What these need besides, to be consistent or to have each kind of their layers."""


def config_of(family: str) -> Any:
    """The tiny config of a family."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[family]
    fields = _shrunk(kind)
    for name, value in FIELDS.get(family, {}).items():
        fields[name] = {**fields.get(name, {}), **value} if isinstance(value, dict) else value
    return kind(**fields)


def _shrunk(kind: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        value = parameter.default
        if name in kind.sub_configs:
            if (sub := _default_part(kind, name)) is not None:
                made[name] = {"model_type": sub.model_type, **_shrunk(sub)}
        elif isinstance(value, bool):
            continue
        elif re.fullmatch(r".*_token_(id|index)", name):
            if isinstance(value, int):
                made[name] = min(value, 260)
            elif isinstance(value, list | tuple):
                made[name] = [min(token, 260) for token in value]
        elif value is None and name in ("n_inner", "hidden_size_per_layer_input"):
            continue
        elif value is None or (isinstance(value, int) and value):
            size = next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), None)
            if size is not None:
                made[name] = size
    return made


def _default_part(kind: Any, name: str) -> Any:
    """The class of a part's config; None where there is none by default."""
    if kind.sub_configs[name].__name__ != "AutoConfig":
        return kind.sub_configs[name]
    try:
        part = getattr(kind(), name)
    except (ValueError, TypeError, ImportError):
        return None
    return None if part is None else type(part)


def make_family(family: str, seed: int = 0, *, vision: bool = False, **fields: Any) -> Any:
    """A random model of the family, float32, in evaluation mode, its weights large enough for every part to matter."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = AutoModelForImageTextToText if vision else AutoModelForCausalLM
    config = config_of(family)
    for name, value in fields.items():
        setattr(config.get_text_config(), name, value)
    with torch.device("meta"):
        size = sum(p.numel() for p in kind.from_config(config).parameters())
    if size > 20e6:
        raise ValueError(f"{size / 1e6:.0f} million parameters")
    torch.manual_seed(seed)
    model = kind.from_config(config).float()
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 and weight.std() > 0 and "A_log" not in name:
            weight.data.mul_(0.7 / weight.shape[-1] ** 0.5 / weight.std())
    return model.eval()


def random_rows(*lengths: int, seed: int = 0) -> list[TokenSequence]:
    """Rows of random tokens that any of the models knows, two thirds of them labels."""
    rng = np.random.default_rng(seed)
    return [TokenSequence(rng.integers(10, 200, n), ((n // 3, n),)) for n in lengths]
