"""Saves an adapter as one LoRA of the original base, though it was trained on PiSSA's residual or merged adapters.

Training on W' = W + ΣBA and saving for W takes the trained product plus the offset ΣBA. A sum of products is one
product of higher rank: [B₁ B₂][A₁; A₂], which `stack` builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sartor.base.errors import ModelError

TRAINED_MATRICES_FILE = "sartor_adapter.safetensors"
"""The trained matrices bit for bit, next to the stacked ones that peft loads."""

LoraOffset: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]
"""Module name → (A_RI, B_OR), float32, rank R: the B·A that was merged into the original base before training."""


def lora_layers(model: Any) -> dict[str, Any]:
    """The LoRA layers with a `default` adapter, by their names in the model without PEFT."""
    from peft.tuners.lora import LoraLayer

    bare = model.get_base_model()
    return {n: m for n, m in bare.named_modules() if isinstance(m, LoraLayer) and "default" in m.lora_A}


def lora_parts(model: Any, sign: float = 1.0) -> dict[str, tuple[Tensor, Tensor]]:
    """The current A_RI and ±scale·B_OR of each layer. Raises: ModelError for DoRA, or modules trained in full."""
    config = model.peft_config["default"]
    if config.use_dora or config.modules_to_save:
        raise ModelError(
            "An adapter with DoRA or with modules trained in full cannot be the base of another adapter.",
            "create_new_adapter",
            "Merge it first (sartor export RUN --to merged), then train on the merged model.",
        )
    return {
        name: (
            layer.lora_A["default"].weight.detach().float().clone(),
            layer.lora_B["default"].weight.detach().float() * (sign * layer.scaling["default"]),
        )
        for name, layer in lora_layers(model).items()
    }


def stack(one: LoraOffset, other: LoraOffset) -> dict[str, tuple[Tensor, Tensor]]:
    """The sum of two offsets as one of rank R₁ + R₂; a layer that only one of them has is padded with zeros."""
    ranks = [next(iter(below.values()))[0].shape[0] if below else 0 for below in (one, other)]
    made = {}
    for name in {**one, **other}:
        pieces = []
        for below, rank in zip((one, other), ranks, strict=True):
            own = below.get(name)
            a, b = own or next(below[name] for below in (one, other) if name in below)
            pieces.append(own or (a.new_zeros(rank, a.shape[1]), b.new_zeros(b.shape[0], rank)))
        made[name] = (torch.cat([a for a, _ in pieces]), torch.cat([b for _, b in pieces], 1))
    return made


def write(model: Any, below: LoraOffset, folder: Path) -> None:
    """Write adapter_model.safetensors and its config for the original base: rank r + R, scale 1."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    whole = stack(lora_parts(model), {name: (a.cpu(), b.cpu()) for name, (a, b) in below.items()})
    tensors = {}
    for name, (a, b) in whole.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.contiguous()
    rank = next(iter(whole.values()))[0].shape[0]
    config = copy(model.peft_config["default"])
    config.r = config.lora_alpha = rank
    config.use_rslora, config.init_lora_weights, config.inference_mode = False, True, True
    config.target_modules = sorted({name.rpartition(".")[2] for name in whole})
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    raw = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    save_file(raw, folder / TRAINED_MATRICES_FILE, metadata={"format": "pt"})
