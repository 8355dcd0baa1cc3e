"""NEFTune: uniform noise on the embeddings while training (Jain et al. 2023, algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def add_noise(model: Any, alpha: float) -> Any:
    """Add uniform noise of ±alpha/√(T·D) to the embeddings in training mode (T tokens, width D); return the hook."""

    def noisy(module: Any, inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        limit = alpha / (output.shape[-2] * output.shape[-1]) ** 0.5
        return output + torch.zeros_like(output).uniform_(-limit, limit)

    return model.get_input_embeddings().register_forward_hook(noisy)
