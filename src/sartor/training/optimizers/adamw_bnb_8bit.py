"""Hugging Face's other name for `adamw_8bit`."""

from __future__ import annotations

from sartor.training.optimizers.adamw_8bit import AdamW8bit

PLUGIN = AdamW8bit("adamw_bnb_8bit")
