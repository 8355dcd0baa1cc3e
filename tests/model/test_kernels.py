"""The shortcuts equal what they replace: loss, gradients, and attention, to rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sartor.model import kernels


@pytest.mark.parametrize("chunk_bytes", [1 << 20, 4 * 11 * 3])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_head_loss_and_its_gradients_equal_cross_entropy(
    n: int, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "CHUNK_BYTES", chunk_bytes)
    torch.manual_seed(0)
    hidden, weight = torch.randn(n, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    target = torch.randint(0, 11, (n,))
    ours = kernels.fused_linear_cross_entropy(hidden, weight, target)
    theirs = F.cross_entropy(hidden @ weight.T, target, reduction="sum")
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for a, b in zip(
        torch.autograd.grad(3 * ours, (hidden, weight)), torch.autograd.grad(3 * theirs, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_head_loss_of_three_tokens_by_hand() -> None:
    """Logits 0 and ln 3: probabilities 1/4 and 3/4; targets 0, 1, 1 cost ln 4 + 2 ln(4/3)."""
    hidden = torch.ones(3, 1)
    weight = torch.tensor([[0.0], [1.0986123]])
    loss = kernels.fused_linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 1]))
    assert loss.item() == pytest.approx(1.3862944 + 2 * 0.2876821, abs=1e-6)


def lora_model(model: Any, **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", **options))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return tuned


def outcome(model: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    ids = torch.arange(40).view(2, 20)
    logits = model(input_ids=ids).logits
    model.zero_grad()
    logits.square().mean().backward()
    return logits.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_fused_lora_equals_pefts(tiny_model: Any) -> None:
    model = lora_model(tiny_model)
    logits, gradients = outcome(model)
    assert kernels.fuse_lora(model) == 14
    fused_logits, fused_gradients = outcome(model)
    torch.testing.assert_close(fused_logits, logits)
    assert len(gradients) == len(fused_gradients) == 28
    for a, b in zip(fused_gradients, gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_fused_lora_can_be_switched_off_and_merged(tiny_model: Any) -> None:
    base = tiny_model(input_ids=torch.arange(8)[None]).logits
    model = lora_model(tiny_model)
    kernels.fuse_lora(model)
    tuned = model(input_ids=torch.arange(8)[None]).logits
    assert not torch.allclose(base, tuned)
    with model.disable_adapter():
        torch.testing.assert_close(model(input_ids=torch.arange(8)[None]).logits, base)
    model.merge_adapter()
    torch.testing.assert_close(model(input_ids=torch.arange(8)[None]).logits, tuned, rtol=1e-4, atol=1e-5)


def test_float32_adapters_on_a_bfloat16_base_get_float32_gradients(tiny_model: Any) -> None:
    model = lora_model(tiny_model.to(torch.bfloat16))
    assert kernels.fuse_lora(model) == 14
    logits, gradients = outcome(model)
    assert logits.dtype == torch.bfloat16
    assert {g.dtype for g in gradients} == {torch.float32}


@pytest.mark.parametrize("options", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_what_does_not_fit_keeps_pefts_forward(tiny_model: Any, options: dict[str, Any]) -> None:
    assert kernels.fuse_lora(lora_model(tiny_model, **options)) == 0


@pytest.mark.parametrize("n", [1, 7])
def test_head_losses_and_their_gradients_equal_cross_entropy(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CHUNK_BYTES", 4 * 11 * 3)
    torch.manual_seed(0)
    hidden, weight = torch.randn(n, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    target, factor = torch.randint(0, 11, (n,)), torch.randn(n)
    ours = kernels.fused_linear_cross_entropy_per_token(hidden, weight, target)
    theirs = F.cross_entropy(hidden @ weight.T, target, reduction="none")
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad((factor * ours).sum(), (hidden, weight)),
        torch.autograd.grad((factor * theirs).sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_norms_give_the_same_bits_and_gradients(tiny_model: Any, dtype: torch.dtype) -> None:
    model = lora_model(tiny_model.to(dtype))
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data = torch.linspace(0.5, 2, weight.numel()).to(dtype)
    logits, gradients = outcome(model)
    assert kernels.fuse_norms(model) == 5
    fused_logits, fused_gradients = outcome(model)
    assert torch.equal(fused_logits, logits)
    for a, b in zip(fused_gradients, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4 if dtype == torch.float32 else 0.05, atol=1e-5)


def test_a_norm_that_learns_or_computes_otherwise_is_left_alone(tiny_model: Any) -> None:
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm

    assert kernels.fuse_norms(tiny_model) == 0  # its weights are trained
    other = Gemma2RMSNorm(8).requires_grad_(False)
    other.variance_epsilon = other.eps
    assert kernels.fuse_norms(torch.nn.ModuleList([other])) == 0


def test_a_product_in_parts_is_the_product() -> None:
    x, w = torch.randn(744, 1536).bfloat16(), torch.randn(1536, 32).bfloat16()
    torch.testing.assert_close(kernels._product(x, w), x @ w, rtol=0.02, atol=0.1)
    assert kernels._product(x[:0], w).shape == (0, 32)


def test_scratch_buffers_of_an_earlier_call_change_nothing() -> None:
    torch.manual_seed(1)
    for rows, width in ((9, 50), (3, 50), (4, 70), (9, 50)):
        hidden, weight = torch.randn(rows, 16, requires_grad=True), torch.randn(width, 16)
        target = torch.randint(0, width, (rows,))
        loss = kernels.fused_linear_cross_entropy(hidden, weight, target)
        expected = torch.nn.functional.cross_entropy(hidden @ weight.T, target, reduction="sum")
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(
            torch.autograd.grad(loss, hidden)[0], torch.autograd.grad(expected, hidden)[0], rtol=1e-4, atol=1e-5
        )
