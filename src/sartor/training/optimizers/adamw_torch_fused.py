"""Hugging Face's name for torch's fused AdamW: `adamw_torch` is fused too, wherever torch can."""

from __future__ import annotations

from sartor.training.optimizers.adamw_torch import TorchAdamW

PLUGIN = TorchAdamW("adamw_torch_fused")
