"""Attention on a CPU: the same as transformers' own, and no example ever sees another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sartor.base.types import Origin, TokenSequence
from sartor.model import attention, head
from sartor.model.batch import Batch, collate, collate_packs
from sartor.model.head import summed_loss


@pytest.mark.parametrize("padded", [False, True])
def test_short_attention_equals_sdpa(tiny_model: Any, padded: bool) -> None:
    ids = torch.arange(60).view(3, 20)
    mask = torch.ones(3, 20, dtype=torch.long)
    if padded:
        mask[1, 12:] = 0
        mask[2, 5:] = 0
    expected = tiny_model(input_ids=ids, attention_mask=mask).logits
    tiny_model.set_attn_implementation(attention.register())
    got = tiny_model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(got[mask.bool()], expected[mask.bool()])


def test_short_attention_of_left_padded_rows_has_no_nan(tiny_model: Any) -> None:
    ids, mask = torch.arange(40).view(2, 20), torch.ones(2, 20, dtype=torch.long)
    mask[1, :13] = 0
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    expected = tiny_model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    tiny_model.set_attn_implementation(attention.register())
    got = tiny_model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(got[mask.bool()], expected[mask.bool()])


def test_long_rows_go_to_sdpa(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MAX_SHORT_TOKENS", 8)
    ids = torch.arange(20)[None]
    expected = tiny_model(input_ids=ids).logits
    tiny_model.set_attn_implementation(attention.register())
    assert torch.equal(tiny_model(input_ids=ids).logits, expected)


def rows_of(*lengths: int) -> list[TokenSequence]:
    draw = torch.Generator().manual_seed(0)
    return [
        TokenSequence(
            torch.randint(5, 60, (n,), generator=draw).numpy().astype("int32"), ((2, n),), Origin("d", "f", n)
        )
        for n in lengths
    ]


def loss_and_gradient(model: Any, *batches: Batch) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = torch.stack([summed_loss(model, batch) for batch in batches]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def alone(model: Any, sequences: list[TokenSequence]) -> tuple[float, torch.Tensor]:
    """Each row by itself, with transformers' own attention."""
    model.set_attn_implementation("sdpa")
    return loss_and_gradient(model, *(collate(sequences, [n], 0) for n in range(len(sequences))))


@pytest.mark.parametrize("short", [192, 4], ids=["short", "long"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_rows_together_learn_as_each_alone(
    tiny_model: Any, packed: bool, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "MAX_SHORT_TOKENS", short)
    sequences = rows_of(9, 4, 17, 3, 12)
    expected = alone(tiny_model, sequences)
    tiny_model.set_attn_implementation(attention.register())
    asked = watched(monkeypatch)
    batch = collate_packs(sequences, [[0, 1, 3], [2], [4]], 0) if packed else collate(sequences, range(5), 0)
    got = loss_and_gradient(tiny_model, batch)
    assert got[0] == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-4, atol=1e-5)
    assert asked
    assert all(n == tiny_model.config.num_hidden_layers for n in asked)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers took each batch by its rows; filled as batches pass."""
    seen: list[int] = []
    plain = attention._by_rows

    def by_rows(query: Any, key: Any, value: Any, rows: attention.RaggedRows, scale: float) -> Any:
        if rows.layers == 1:
            seen.append(0)
        seen[-1] += 1
        return plain(query, key, value, rows, scale)

    monkeypatch.setattr(attention, "_by_rows", by_rows)
    return seen


def test_no_more_padding_is_computed_than_makes_the_tokens_a_multiple(tiny_model: Any) -> None:
    tiny_model.set_attn_implementation(attention.register())
    seen: list[torch.Size] = []
    tiny_model.base_model.layers[0].mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    summed_loss(tiny_model, collate(rows_of(60, 30, 12), range(3), 0))  # 102 tokens of 180
    summed_loss(tiny_model, collate(rows_of(60, 55, 1), range(3), 0))  # 116: what is missing goes to the shortest
    summed_loss(tiny_model, collate(rows_of(20, 20, 20), range(3), 0))  # nothing to leave out
    assert [tuple(shape[:2]) for shape in seen] == [(1, 128), (1, 128), (3, 20)]


def test_rows_longer_than_a_sliding_window_go_by_the_mask(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = rows_of(9, 4, 17)
    plain = attention.short_attention
    expected = alone(tiny_model, sequences)
    tiny_model.set_attn_implementation(attention.register())
    monkeypatch.setattr(attention, "_by_rows", lambda *_: pytest.fail("the window is shorter than a row"))
    from transformers import AttentionInterface

    AttentionInterface.register(attention.NAME, lambda *a, **k: plain(*a, sliding_window=16, **k))
    try:
        got = loss_and_gradient(tiny_model, collate(sequences, range(3), 0))
    finally:
        attention.register()
    torch.testing.assert_close(got[1], expected[1], rtol=1e-4, atol=1e-5)


def test_a_model_that_keeps_the_rows_to_itself_is_given_padding(tiny_model: Any) -> None:
    sequences = rows_of(9, 4, 17)
    expected = alone(tiny_model, sequences)
    tiny_model.set_attn_implementation(attention.register())
    forward = tiny_model.base_model.forward
    tiny_model.base_model.forward = lambda rows=None, **given: forward(**given)
    batch = collate(sequences, range(3), 0)
    for _ in range(2):
        torch.testing.assert_close(loss_and_gradient(tiny_model, batch)[1], expected[1], rtol=1e-4, atol=1e-5)
    assert tiny_model in head.PADDED


def test_other_kinds_of_layers_keep_their_padding(tiny_model: Any) -> None:
    tiny_model.set_attn_implementation(attention.register())
    assert attention.takes_rows(tiny_model)
    tiny_model.config.layer_types = ["sliding_attention", "full_attention"]
    assert not attention.takes_rows(tiny_model)


def test_bfloat16_rows_are_as_exact_as_padded_ones(tiny_model: Any) -> None:
    sequences = rows_of(9, 4, 17, 30)
    _, exact = alone(tiny_model, sequences)
    tiny_model.bfloat16()
    _, padded = alone(tiny_model, sequences)
    tiny_model.set_attn_implementation(attention.register())
    _, got = loss_and_gradient(tiny_model, collate(sequences, range(4), 0))

    def off(gradient: torch.Tensor) -> float:
        return float((gradient.float() - exact).norm() / exact.norm())

    assert off(got) < 1.2 * off(padded)


@pytest.mark.parametrize("lengths", [(9, 4, 17), (17, 17, 17), (240, 200)], ids=["rows", "padded", "long"])
def test_mixed_precision_computes_in_bfloat16_and_learns_in_float32(tiny_model: Any, lengths: tuple[int, ...]) -> None:
    sequences = rows_of(*lengths)
    _, exact = alone(tiny_model, sequences)
    tiny_model.set_attn_implementation(attention.register())
    tiny_model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = summed_loss(tiny_model, collate(sequences, range(len(sequences)), 0))
    loss.backward()  # type: ignore[no-untyped-call]
    got = torch.cat([p.grad.flatten() for p in tiny_model.parameters() if p.grad is not None])
    assert got.dtype == torch.float32
    assert float((got - exact).norm() / exact.norm()) < 0.02
