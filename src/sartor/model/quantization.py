"""Weights in 4 or 8 bit, by bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import Any

from sartor.base.errors import ModelError
from sartor.base.settings import ModelSettings

PACKED_ROWS = 32
"""Output features that bitsandbytes packs together."""


def load_options(settings: ModelSettings, device: str, compute_dtype: Any) -> dict[str, Any]:
    """transformers' load options for 4-bit (NormalFloat, Dettmers et al. 2023) or 8-bit weights.

    Raises: ModelError if bitsandbytes is not installed.
    """
    if not settings.quantization_bit:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "4-bit and 8-bit weights require bitsandbytes.",
            f"quantization_bit: {settings.quantization_bit}",
            "Run: pip install 'sartor[quant]'",
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=settings.quantization_bit == 4,
        load_in_8bit=settings.quantization_bit == 8,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_type=settings.quantization_type,
        bnb_4bit_use_double_quant=settings.double_quantization,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def pack_layers(model: Any, packed: bool) -> None:
    """Whether bitsandbytes packs 4-bit layers for CPUs with AVX-512, which fails for shapes other than whole blocks.

    Other layers are computed as on other CPUs.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            block = getattr(getattr(module.weight, "quant_state", None), "blocksize", 64)
            fits = module.out_features % PACKED_ROWS == 0 and module.in_features % block == 0
            module.support_avx512bf16_for_cpu = packed and fits
