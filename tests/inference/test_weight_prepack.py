"""Packed weights answer as the plain ones, and never for other weights than those that were packed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sartor.inference import weight_prepack

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16 products"
)


def answers(model: Any, rows: int) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.arange(rows * 7).view(rows, 7) % 50).logits
    return logits


@pytest.mark.parametrize("rows", [1, 9, 100])
def test_packed_weights_answer_as_plain_ones(tiny_model: Any, rows: int) -> None:
    model = tiny_model.to(torch.bfloat16).requires_grad_(False)
    plain = answers(model, rows)
    assert weight_prepack.prepack(model) == 15
    packed = answers(model, rows)
    torch.testing.assert_close(packed, plain, rtol=0.02, atol=0.02)
    assert packed.shape == plain.shape


def test_other_weights_are_never_answered_with_the_packed_ones() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 32).bfloat16().requires_grad_(False)
    model, x = nn.Sequential(layer), torch.randn(20, 64).bfloat16()
    weight_prepack.prepack(model)
    first = model(x)
    layer.weight.data = torch.zeros_like(layer.weight)
    assert torch.equal(model(x), layer.bias.expand(20, 32))
    weight_prepack.prepack(model)
    assert torch.equal(model(x), layer.bias.expand(20, 32))
    assert not torch.equal(first, model(x))
    layer.weight.fill_(1.0)  # in place
    torch.testing.assert_close(model(x)[0, 0], x[0].sum() + layer.bias[0], rtol=0.02, atol=0.1)


def test_what_is_trained_wide_or_large_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert weight_prepack.prepack(nn.Linear(4, 4).bfloat16()) == 0
    assert weight_prepack.prepack(nn.Linear(4, 4).requires_grad_(False)) == 0
    monkeypatch.setattr(weight_prepack, "MAX_BYTES", 8)
    assert weight_prepack.prepack(nn.Linear(4, 4).bfloat16().requires_grad_(False)) == 0
