"""Hidden states to the loss of label positions only, whatever the model's head does; knows no objective."""

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
    """The model itself, or the one inside PEFT's wrapper (its adapters stay where they are)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


_PADS: WeakSet[nn.Module] = WeakSet()
"""Models whose own code does not hand keyword arguments on to attention."""
MIN_PADDING_FRAC = 1 / 32
"""With a smaller share of padding than this a batch stays as it is."""
TOKEN_MULTIPLE = 32
"""So much padding stays that the tokens are a multiple of this: shapes that recur leave fewer holes in the heap (1.83
in place of 2.19 GB after 60 steps of the demo) and suit the matrix units (a step 4 % shorter; measured 2026-11-23)."""


def label_hidden_states(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """(hidden_ND, target_N): the states that predict a label, and those labels.

    Where the model's attention can keep examples apart by itself, it is given their tokens alone, without padding.
    """
    causal = causal_model(model)
    target_BT = batch.labels_BT[:, 1:]
    wanted_BT = target_BT != IGNORE_INDEX
    if attention.passes_rows_through(causal) and causal not in _PADS and (rows := _ragged_rows(batch)):
        real_BT = _unpadded_forward(batch, rows)
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


def _unpadded_forward(batch: Batch, rows: attention.RaggedRows) -> Tensor:
    """Which places the model computes on; all of packed rows, whose padding is an example of its own."""
    if batch.lengths_B is None:
        return torch.ones_like(batch.ids_BT, dtype=torch.bool)
    length_B = torch.tensor(rows.lengths, device=batch.ids_BT.device)
    return torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device) < length_B[:, None]


def _ragged_rows(batch: Batch) -> attention.RaggedRows | None:
    """The examples of packed rows, or of padded ones where most of the padding is worth leaving out."""
    if batch.lengths_B is None:
        starts = (batch.positions_BT.flatten() == 0).nonzero().flatten().tolist()
        ends = [*starts[1:], batch.ids_BT.numel()]
        return attention.RaggedRows([end - start for start, end in zip(starts, ends)])
    lengths: list[int] = batch.lengths_B.tolist()
    missing, longest = -sum(lengths) % TOKEN_MULTIPLE, batch.ids_BT.shape[1]
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):  # what follows an example it never sees
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
