"""From hidden states to the loss, on label positions only: the LM head, fused with cross-entropy where possible."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartor.base.types import IGNORE_INDEX
from sartor.model import attention
from sartor.model.batch import Batch
from sartor.model.kernels import fused_linear_cross_entropy, fused_linear_cross_entropy_per_token


def causal_model(model: Any) -> Any:
    """The model itself, or the one inside PEFT's wrapper (adapters stay active)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


_PADS: WeakSet[nn.Module] = WeakSet()
"""Models whose code does not pass keyword arguments on to attention: their batches stay padded."""
MIN_PADDING_FRAC = 1 / 32
"""A batch with a smaller fraction of padding than this stays padded."""
TOKEN_MULTIPLE = 32
"""Padding is kept up to a multiple of this: recurring shapes fragment the heap less (1.83 instead of 2.19 GB after 60
steps of the demo) and suit the matrix units (steps are 4 % shorter; measured 2026-11-23)."""


def label_hidden_states(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """(hidden_ND, target_N): the hidden states that predict a label, and the labels.

    If the model's attention supports it, the forward pass runs on the examples' tokens alone, without padding.
    """
    causal = causal_model(model)
    target_BT = batch.labels_BT[:, 1:]
    wanted_BT = target_BT != IGNORE_INDEX
    if attention.passes_rows_through(causal) and causal not in _PADS and (rows := _ragged_rows(batch)):
        real_BT = _is_real_token(batch, rows)
        hidden_1ND = causal.base_model(
            input_ids=batch.ids_BT[real_BT][None],
            position_ids=batch.positions_BT[real_BT][None],
            attention_mask=None,
            use_cache=False,
            rows=rows,
        ).last_hidden_state
        if rows.layers:
            place_BT = (real_BT.flatten().cumsum(0) - 1).view_as(real_BT)
            return hidden_1ND[0, place_BT[:, :-1][wanted_BT]], target_BT[wanted_BT]
        _PADS.add(causal)
    output = causal.base_model(
        input_ids=batch.ids_BT, position_ids=batch.positions_BT, attention_mask=None, use_cache=False
    )
    return output.last_hidden_state[:, :-1][wanted_BT], target_BT[wanted_BT]


def _is_real_token(batch: Batch, rows: attention.RaggedRows) -> Tensor:
    """bool, B × T: the positions to compute on; all positions of packed rows, whose padding is a separate example."""
    if batch.lengths_B is None:
        return torch.ones_like(batch.ids_BT, dtype=torch.bool)
    length_B = torch.tensor(rows.lengths, device=batch.ids_BT.device)
    return torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device) < length_B[:, None]


def _ragged_rows(batch: Batch) -> attention.RaggedRows | None:
    """The examples of packed rows; of padded rows only if removing the padding pays, else None."""
    if batch.lengths_B is None:
        starts = (batch.positions_BT.flatten() == 0).nonzero().flatten().tolist()
        ends = [*starts[1:], batch.ids_BT.numel()]
        return attention.RaggedRows([end - start for start, end in zip(starts, ends)])
    lengths: list[int] = batch.lengths_B.tolist()
    missing, longest = -sum(lengths) % TOKEN_MULTIPLE, batch.ids_BT.shape[1]
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):  # causal: an example never sees what follows it
        more = min(missing, longest - lengths[row])
        lengths[row] += more
        missing -= more
    return attention.RaggedRows(lengths) if sum(lengths) < (1 - MIN_PADDING_FRAC) * batch.ids_BT.numel() else None


def summed_loss(model: Any, batch: Batch) -> Tensor:
    """Sum over label tokens of −ln p (nats, float32, a scalar)."""
    hidden_ND, target_N = label_hidden_states(model, batch)
    head = causal_model(model).get_output_embeddings()
    if _is_plain(model, head) and not torch.is_autocast_enabled(hidden_ND.device.type):
        return fused_linear_cross_entropy(hidden_ND, head.weight, target_N)
    return F.cross_entropy(logits(model, hidden_ND).float(), target_N, reduction="sum")


def sequence_logps(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """(logp_B, count_B): the sum of ln p over each row's label tokens, and how many there are (float32)."""
    hidden_ND, target_N = label_hidden_states(model, batch)
    head = causal_model(model).get_output_embeddings()
    if _is_plain(model, head) and not torch.is_autocast_enabled(hidden_ND.device.type):
        loss_N = fused_linear_cross_entropy_per_token(hidden_ND, head.weight, target_N)
    else:
        loss_N = F.cross_entropy(logits(model, hidden_ND).float(), target_N, reduction="none")
    wanted_BT = batch.labels_BT[:, 1:] != IGNORE_INDEX
    row_N = torch.arange(len(batch.ids_BT), device=loss_N.device).repeat_interleave(wanted_BT.sum(1))
    logp_B = loss_N.new_zeros(len(batch.ids_BT)).index_add(0, row_N, -loss_N)
    return logp_B, wanted_BT.sum(1).float()


def token_losses(model: Any, batch: Batch) -> Tensor:
    """−ln p of each label token, loss_N in the order of rows and positions (float32)."""
    hidden_ND, target_N = label_hidden_states(model, batch)
    return F.cross_entropy(logits(model, hidden_ND).float(), target_N, reduction="none")


def logits(model: Any, hidden_ND: Tensor) -> Tensor:
    """logits_NV as the model's own forward computes them: the head, then scaling or soft-capping if it has any."""
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
