"""From hidden states to the loss, on label positions only: the LM head, fused with cross-entropy where possible."""

from __future__ import annotations

import functools
import inspect
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from sartor.base.types import IGNORE_INDEX
from sartor.model import attention, text_part
from sartor.model.batch import Batch
from sartor.model.kernels import fused_linear_cross_entropy, fused_linear_cross_entropy_per_token
from sartor.model.text_part import text_decoder


def causal_model(model: Any) -> Any:
    """The model itself, or the one inside PEFT's wrapper (adapters stay active)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


PADDED: WeakSet[nn.Module] = WeakSet()
"""Models whose batches stay padded: their code would mix examples without padding, or does not pass them on."""
WHOLE: WeakSet[nn.Module] = WeakSet()
"""Models whose loss is computed from the logits of their whole forward pass, because nothing less reproduces them."""
_PLAIN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Model → whether its logits are the product with its head's weight and nothing else."""
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
    longest = batch.ids_BT.shape[1]
    if causal not in PADDED and attention.takes_rows(causal, longest) and (rows := _ragged_rows(batch)):
        real_BT = _is_real_token(batch, rows)
        hidden_1ND = _backbone(
            causal, batch.ids_BT[real_BT][None], batch.positions_BT[real_BT][None], rows=rows
        ).last_hidden_state
        if rows.layers:
            place_BT = (real_BT.flatten().cumsum(0) - 1).view_as(real_BT)
            return hidden_1ND[0, place_BT[:, :-1][wanted_BT]], target_BT[wanted_BT]
        PADDED.add(causal)
    output = _backbone(causal, batch.ids_BT, batch.positions_BT)
    return output.last_hidden_state[:, :-1][wanted_BT], target_BT[wanted_BT]


def backbone(model: Any) -> Any:
    """What turns text into hidden states."""
    return text_decoder(causal_model(model))


def _backbone(causal: Any, ids_BT: Tensor, positions_BT: Tensor, **options: Any) -> Any:
    """The output of the model without its head."""
    base = text_decoder(causal)
    if _takes_positions(base.__class__):
        options["position_ids"] = positions_BT
    return base(input_ids=ids_BT, attention_mask=None, use_cache=False, **options)


@functools.lru_cache(maxsize=64)
def _takes_positions(kind: Any) -> bool:
    """Whether the forward pass accepts `position_ids`: models with ALiBi or recurrence have no use for them."""
    parameters = inspect.signature(kind.forward).parameters
    return "position_ids" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


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
    if causal_model(model) not in WHOLE:
        hidden_ND, target_N = label_hidden_states(model, batch)
        if _fuses(model, hidden_ND):
            return fused_linear_cross_entropy(hidden_ND, causal_model(model).get_output_embeddings().weight, target_N)
        return F.cross_entropy(logits(model, hidden_ND).float(), target_N, reduction="sum")
    return token_losses(model, batch).sum()


def sequence_logps(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """(logp_B, count_B): the sum of ln p over each row's label tokens, and how many there are (float32)."""
    loss_N = token_losses(model, batch)
    wanted_BT = batch.labels_BT[:, 1:] != IGNORE_INDEX
    row_N = torch.arange(len(batch.ids_BT), device=loss_N.device).repeat_interleave(wanted_BT.sum(1))
    logp_B = loss_N.new_zeros(len(batch.ids_BT)).index_add(0, row_N, -loss_N)
    return logp_B, wanted_BT.sum(1).float()


def token_losses(model: Any, batch: Batch) -> Tensor:
    """−ln p of each label token, loss_N in the order of rows and positions (float32)."""
    if causal_model(model) in WHOLE:
        logits_NV, target_N = _whole_logits(model, batch)
    else:
        hidden_ND, target_N = label_hidden_states(model, batch)
        if _fuses(model, hidden_ND):
            weight_VD = causal_model(model).get_output_embeddings().weight
            return fused_linear_cross_entropy_per_token(hidden_ND, weight_VD, target_N)
        logits_NV = logits(model, hidden_ND)
    return F.cross_entropy(logits_NV.float(), target_N, reduction="none")


def rewards(model: Any, batch: Batch) -> Tensor:
    """reward_B: the score of each row's last token that is not padding, as transformers' `…ForSequenceClassification`
    gives it; a last token that is the padding token, too, is passed over there."""
    whole = causal_model(model)
    hidden_BTD = _backbone(whole, batch.ids_BT, batch.positions_BT).last_hidden_state
    place_T = torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device)
    last_B = (place_T * (batch.ids_BT != whole.config.pad_token_id)).argmax(-1)
    hidden_BD = hidden_BTD[torch.arange(len(batch.ids_BT), device=batch.ids_BT.device), last_B]
    dtype = next(whole.score.parameters()).dtype
    reward_B: Tensor = whole.score(hidden_BD.to(dtype))[:, 0].float()
    return reward_B


def _whole_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """(logits_NV, target_N) from the model's whole forward pass."""
    target_BT = batch.labels_BT[:, 1:]
    wanted_BT = target_BT != IGNORE_INDEX
    positions = {} if batch.lengths_B is not None else {"position_ids": batch.positions_BT}
    logits_BTV = causal_model(model)(input_ids=batch.ids_BT, use_cache=False, **positions).logits
    return logits_BTV[:, :-1][wanted_BT], target_BT[wanted_BT]


def logits(model: Any, hidden_ND: Tensor) -> Tensor:
    """logits_NV as the model's own forward computes them: the head, then scaling or soft-capping if it has any."""
    causal = causal_model(model)
    made = None if is_plain(causal) else _logits_of(causal, hidden_ND)
    logits_NV: Tensor = causal.get_output_embeddings()(hidden_ND) if made is None else made
    return logits_NV


def _fuses(model: Any, hidden_ND: Tensor) -> bool:
    """Whether the fused cross-entropy computes this model's loss."""
    head = causal_model(model).get_output_embeddings()
    fused = type(head) is nn.Linear and head.bias is None and not torch.is_autocast_enabled(hidden_ND.device.type)
    return fused and is_plain(causal_model(model))


class _Given(BaseModelOutputWithPast):  # type: ignore[misc]
    """Hidden states as a backbone returns them; whatever else a head asks for is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _logits_of(causal: Any, hidden_ND: Tensor) -> Tensor | None:
    """The model's own code after its backbone, run on given hidden states; None if it does not call its backbone."""
    base, called = text_part.backbone(causal), False
    if base is causal:
        base = text_decoder(causal)
    if base is causal:
        return None

    def given(*args: Any, **kwargs: Any) -> Any:
        nonlocal called
        called = True
        return _Given(last_hidden_state=hidden_ND[None])

    before = base.__dict__.get("forward")
    base.forward = given
    try:
        ids_1N = torch.zeros(1, len(hidden_ND), dtype=torch.int64, device=hidden_ND.device)
        logits_1NV = causal(input_ids=ids_1N, use_cache=False).logits
    finally:
        del base.forward
        if before is not None:
            base.forward = before
    return logits_1NV[0] if called else None


@torch.no_grad()
def is_plain(causal: Any) -> bool:
    """Whether the logits are the head's alone: families multiply, divide, cap or mask them under many names."""
    if causal not in _PLAIN:
        head = causal.get_output_embeddings()
        weight = next(head.parameters())
        probe_ND = torch.linspace(-3, 5, 2 * weight.shape[-1], device=weight.device).view(2, -1).to(weight.dtype)
        with torch.autocast(weight.device.type, enabled=False):
            made = _logits_of(causal, probe_ND)
            _PLAIN[causal] = made is None or torch.equal(made.float(), head(probe_ND[None])[0].float())
    return _PLAIN[causal]
