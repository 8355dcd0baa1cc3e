"""A tiny model of any family with a random LoRA adapter over it, as the folders that a training leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model


def save_adapter(model: Any, folder: Path, *, base: Path, seed: int = 1, size: float = 0.2) -> Path:
    """Random LoRA matrices of a size that changes answers. The model is used up."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model, config)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=size)
    tuned.peft_config["default"].base_model_name_or_path = str(base)
    tuned.save_pretrained(folder)
    return folder
