"""One LoRA over the original base, whatever was trained on: PiSSA's residual, or earlier adapters merged below."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sartor.base.errors import ModelError

TRAINED_MATRICES_FILE = "sartor_adapter.safetensors"
"""The trained matrices themselves, bit by bit, beside the stacked ones that peft loads."""

LoraOffset: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]
"""Module name → (A_RI, B_OR), float32: what B·A must be added to the base that is trained on to give the original."""


def lora_layers(model: Any) -> dict[str, Any]:
    """The LoRA layers with a `default` adapter, by their names in the bare model."""
    from peft.tuners.lora import LoraLayer

    bare = model.get_base_model()
    return {n: m for n, m in bare.named_modules() if isinstance(m, LoraLayer) and "default" in m.lora_A}


def lora_parts(model: Any, sign: float = 1.0) -> dict[str, tuple[Tensor, Tensor]]:
    """Each layer's A and ±scale·B as they are now. Raises: ModelError for what a sum of matrices cannot hold."""
    config = model.peft_config["default"]
    if config.use_dora or config.modules_to_save:
        raise ModelError(
            "An adapter with DoRA or with modules trained in full cannot lie under another.",
            "create_new_adapter",
            "Merge it first: sartor export RUN --to merged, and train on that.",
        )
    return {
        name: (
            layer.lora_A["default"].weight.detach().float().clone(),
            layer.lora_B["default"].weight.detach().float() * (sign * layer.scaling["default"]),
        )
        for name, layer in lora_layers(model).items()
    }


def stack(one: LoraOffset, other: LoraOffset) -> dict[str, tuple[Tensor, Tensor]]:
    """The sum of two sets of products, as one set of higher rank; a layer that one of them lacks gets zeros."""
    ranks = [next(iter(below.values()))[0].shape[0] if below else 0 for below in (one, other)]
    made = {}
    for name in {**one, **other}:
        pieces = []
        for below, rank in zip((one, other), ranks, strict=True):
            known = below.get(name)
            a, b = known or next(below[name] for below in (one, other) if name in below)
            pieces.append(known or (a.new_zeros(rank, a.shape[1]), b.new_zeros(b.shape[0], rank)))
        made[name] = (torch.cat([a for a, _ in pieces]), torch.cat([b for _, b in pieces], 1))
    return made


def write(model: Any, below: LoraOffset, folder: Path) -> None:
    """adapter_model.safetensors and its config for the original base: rank r + R, scale 1."""
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
