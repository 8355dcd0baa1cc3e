"""Attention on a CPU: short rows by two batched matrix products, and examples of different length without padding.

Without padding, the model computes on N tokens of all examples in one row. `RaggedRows` says which example each token
belongs to; only attention, which must not look across examples, arranges them as B padded rows of T tokens.

Shapes: B rows, T tokens, N tokens of all rows, H query heads, G key heads (groups), R = H/G, D head width,
S = R·T query rows per group, X = B·G.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartor.model.shape import MAX_SHORT_TOKENS

NAME = "sartor_short"
"""The name of `short_attention` in transformers."""


class RaggedRows:
    """B examples of `lengths` tokens, concatenated to N tokens.

    `token_BT` is the index of each row's tokens among the N; after the end of a row it repeats the last one.
    """

    def __init__(self, lengths: list[int]) -> None:
        self.lengths, self.longest = lengths, max(lengths)
        self.layers = 0
        """How many attention layers used this; 0 means that the model does not pass it on."""
        lengths_B = torch.tensor(lengths)
        starts_B = lengths_B.cumsum(0) - lengths_B
        place_T = torch.arange(self.longest)
        self._after_end_BT = place_T >= lengths_B[:, None]
        self.token_BT = starts_B[:, None] + place_T.minimum(lengths_B[:, None] - 1)
        self._orders: dict[tuple[int, int], _Order] = {}

    def order(self, heads: int, groups: int) -> _Order:
        """How N × H heads are arranged as X blocks of S rows; computed once, used by every layer."""
        if (heads, groups) not in self._orders:
            head_GR = torch.arange(heads).view(groups, -1)
            index = self.token_BT[:, None, None, :] * heads + head_GR[None, :, :, None]
            behind = self._after_end_BT[:, None, None, :].expand(index.shape).reshape(-1)
            index, place = index.reshape(-1), torch.arange(index.numel())
            inverse = torch.empty(sum(self.lengths) * heads, dtype=torch.int64)
            inverse[index[~behind]] = place[~behind]
            self._orders[heads, groups] = _Order(index, inverse, place[behind])
        return self._orders[heads, groups]


class _Order:
    def __init__(self, index: Tensor, inverse: Tensor, behind: Tensor) -> None:
        self.index, self.inverse, self.behind = index, inverse, behind


class _Spread(torch.autograd.Function):
    """x[index]; positions after the end of a row are copies that get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: _Order) -> Tensor:
        ctx.order = order
        return x.index_select(0, order.index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.index_select(0, ctx.order.inverse), None


class _Gather(torch.autograd.Function):
    """x[inverse]: only the positions within rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: _Order) -> Tensor:
        ctx.order = order
        return x.index_select(0, order.inverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.index_select(0, ctx.order.index).index_fill_(0, ctx.order.behind, 0), None


class _Causal(torch.autograd.Function):
    """softmax(s·Q Kᵀ + causal) V; the R query heads of a group are stacked as rows and share its keys.

    Weights are kept in the dtype of the inputs; scores, softmax and its gradient are each rounded to it once, as matrix
    products do. q_XSD, k_XTD, v_XTD → y_XSD.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, s: float) -> Tensor:
        ctx.s = s
        mask_ST = _causal_mask(k.shape[1], q.dtype).repeat(q.shape[1] // k.shape[1], 1)
        with torch.autocast(q.device.type, enabled=False):
            weights = torch.softmax(torch.baddbmm(mask_ST[None], q, k.transpose(1, 2), alpha=s), dim=-1)
        ctx.save_for_backward(q, k, v, weights)
        return weights @ v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, k, v, weights = ctx.saved_tensors
        grad_v, grad_weights = weights.transpose(1, 2) @ grad, grad @ v.transpose(1, 2)
        scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype).mul_(ctx.s)
        return scores @ k, scores.transpose(1, 2) @ q, grad_v, None


@functools.lru_cache(maxsize=8)
def _causal_mask(t: int, dtype: torch.dtype) -> Tensor:
    return torch.full((t, t), float("-inf"), dtype=dtype).triu_(1)


# Eight parameters: transformers calls every attention function with these.
def short_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    rows: RaggedRows | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention by two batched products for short rows on a CPU; everything else uses transformers' sdpa.

    Up to MAX_SHORT_TOKENS this beats torch 2.13's CPU flash kernel, whose backward is slow: 1.5 against 6.6 ms at
    8 × 64 tokens, 8.3 against 21.7 at 16 × 96, 11.5 against 10.3 at 4 × 256 (measured 2026-11-23, two cores, bf16).
    query_BHTD, key_BGTD, value_BGTD → output_BTHD; with `rows`, B is 1 and T is N.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = getattr(module, "is_causal", True) and kwargs.get("is_causal") is not False
    plain = causal and not dropout and query.device.type == "cpu" and value.shape[-1] == query.shape[-1]
    plain = plain and kwargs.get("position_bias") is None and kwargs.get("softcap") is None
    plain = plain and (attention_mask is None or attention_mask.shape[1] == 1)
    if torch.is_autocast_enabled(query.device.type):  # the dtype that autocast would compute in
        query, key, value = (x.to(torch.get_autocast_dtype(x.device.type)) for x in (query, key, value))
    if rows is not None:
        rows.layers += 1
        if plain and rows.longest <= (kwargs.get("sliding_window") or rows.longest):
            return _by_rows(query, key, value, rows, scale), None
    t = query.shape[2]
    if t > MAX_SHORT_TOKENS or t != key.shape[2] or not plain:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    b, h, _, d = query.shape
    g = key.shape[1]
    query_XSD = query.reshape(b * g, h // g * t, d)
    key_XTD, value_XTD = key.reshape(b * g, t, d), value.reshape(b * g, t, d)
    if attention_mask is None:
        y_XSD: Tensor = _Causal.apply(query_XSD, key_XTD, value_XTD, scale)  # type: ignore[no-untyped-call]
    else:
        y_XSD = _masked(query_XSD, key_XTD, attention_mask, scale) @ value_XTD
    return y_XSD.view(b, h, t, d).transpose(1, 2).contiguous(), None


def _masked(query_XSD: Tensor, key_XTD: Tensor, attention_mask: Tensor, scale: float) -> Tensor:
    """The attention weights with a mask, B × 1 × T × T (bool, or added to the scores)."""
    x, s, t = len(query_XSD), query_XSD.shape[1], key_XTD.shape[1]
    b = len(attention_mask)
    scores = (query_XSD @ key_XTD.transpose(1, 2)).float().mul_(scale).view(b, x // b, s // t, t, t)
    lowest = torch.finfo(torch.float32).min  # not −inf: a fully masked query must not become NaN
    if attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask[:, :, None], lowest)
    else:
        scores = scores + attention_mask[:, :, None].float().clamp_min(lowest)
    return F.softmax(scores, dim=-1).to(query_XSD.dtype).view(x, s, t)


def _by_rows(query: Tensor, key: Tensor, value: Tensor, rows: RaggedRows, scale: float) -> Tensor:
    """query_1HND, key_1GND, value_1GND → output_1NHD, each row on its own."""
    (_, h, n, d), g = query.shape, key.shape[1]
    if rows.longest > MAX_SHORT_TOKENS:
        parts = zip(*(part.split(rows.lengths, dim=2) for part in (query, key, value)))  # type: ignore[no-untyped-call]
        done = [
            F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=g != h) for q, k, v in parts
        ]
        return torch.cat(done, dim=2).transpose(1, 2).contiguous()
    of_queries, of_keys = rows.order(h, g), rows.order(g, g)
    b, t = len(rows.lengths), rows.longest
    query_XSD, key_XTD, value_XTD = (
        _Spread.apply(part.transpose(1, 2).reshape(-1, d), order).view(b * g, -1, d)  # type: ignore[no-untyped-call]
        for part, order in ((query, of_queries), (key, of_keys), (value, of_keys))
    )
    y_XSD = _Causal.apply(query_XSD, key_XTD, value_XTD, scale)  # type: ignore[no-untyped-call]
    output: Tensor = _Gather.apply(y_XSD.view(b * h * t, d), of_queries)  # type: ignore[no-untyped-call]
    return output.view(1, n, h, d)


def register() -> str:
    """Register `short_attention` with transformers (with sdpa's masks); return its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, short_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def use(model: Any, name: str) -> None:
    """Have the parts of the model that compute attention by sdpa or by `short_attention` use `name` instead; parts
    that support neither (audio towers) keep their own."""
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    for config in (*configs, *(config.get_text_config() for config in configs)):
        if getattr(config, "_attn_implementation", None) in (NAME, "sdpa"):
            config._attn_implementation_internal = name


def takes_rows(model: Any, longest: int = 0) -> bool:
    """Whether rows of so many tokens can be tried without padding: our attention, with full causal context, in every
    layer. Some families tell attention of a sliding window by the mask alone, so none may be shorter than a row."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) or longest
    return config._attn_implementation == NAME and kinds == {"full_attention"} and longest <= window
