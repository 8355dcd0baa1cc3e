"""Hidden states to the loss of label positions only, whatever the model's head does; knows no objective."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartor.base.types import IGNORED
from sartor.learn.batch import Batch
from sartor.learn.fused import head_loss, head_losses


def causal_model(model: Any) -> Any:
    """The model itself, or the one inside PEFT's wrapper (its adapters stay where they are)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def label_hidden(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """(hidden_ND, target_N): the states that predict a label, and those labels."""
    causal = causal_model(model)
    output = causal.base_model(
        input_ids=batch.ids_BT, position_ids=batch.positions_BT, attention_mask=None, use_cache=False
    )
    target_BT = batch.labels_BT[:, 1:]
    wanted_BT = target_BT != IGNORED
    return output.last_hidden_state[:, :-1][wanted_BT], target_BT[wanted_BT]


def summed_loss(model: Any, batch: Batch) -> Tensor:
    """Sum over label tokens of −ln p (nats, float32, a scalar)."""
    hidden_ND, target_N = label_hidden(model, batch)
    head = causal_model(model).get_output_embeddings()
    if _is_plain(model, head) and not torch.is_autocast_enabled(hidden_ND.device.type):
        return head_loss(hidden_ND, head.weight, target_N)
    return F.cross_entropy(logits(model, hidden_ND).float(), target_N, reduction="sum")


def row_logps(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """(logp_B, count_B): the sum of ln p over each row's label tokens, and how many there are (float32)."""
    hidden_ND, target_N = label_hidden(model, batch)
    head = causal_model(model).get_output_embeddings()
    if _is_plain(model, head) and not torch.is_autocast_enabled(hidden_ND.device.type):
        loss_N = head_losses(hidden_ND, head.weight, target_N)
    else:
        loss_N = F.cross_entropy(logits(model, hidden_ND).float(), target_N, reduction="none")
    wanted_BT = batch.labels_BT[:, 1:] != IGNORED
    row_N = torch.arange(len(batch.ids_BT), device=loss_N.device).repeat_interleave(wanted_BT.sum(1))
    logp_B = loss_N.new_zeros(len(batch.ids_BT)).index_add(0, row_N, -loss_N)
    return logp_B, wanted_BT.sum(1).float()


def token_losses(model: Any, batch: Batch) -> Tensor:
    """−ln p of each label token, loss_N in the order of rows and positions (float32)."""
    hidden_ND, target_N = label_hidden(model, batch)
    return F.cross_entropy(logits(model, hidden_ND).float(), target_N, reduction="none")


def logits(model: Any, hidden_ND: Tensor) -> Tensor:
    """What the model's own forward makes of hidden states: its head, then scaling or soft-capping where it has them."""
    causal = causal_model(model)
    config = causal.config.get_text_config()
    logits_NV: Tensor = causal.get_output_embeddings()(hidden_ND)
    if scale := getattr(config, "logit_scale", None):  # Cohere
        logits_NV = logits_NV * scale
    if divisor := getattr(config, "logits_scaling", None):  # Granite
        logits_NV = logits_NV / divisor
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
        logits_NV = torch.tanh(logits_NV / cap) * cap
    return logits_NV


def _is_plain(model: Any, head: Any) -> bool:
    config = causal_model(model).config.get_text_config()
    names = ("logit_scale", "logits_scaling", "final_logit_softcapping")
    changed = any(getattr(config, name, None) not in (None, 1, 1.0) for name in names)
    return type(head) is nn.Linear and head.bias is None and not changed
