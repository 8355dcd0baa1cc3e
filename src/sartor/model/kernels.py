"""Fused operations for training: LM head with cross-entropy, LoRA linear layers, RMS norms.

They save memory and time and compute the same function; layers that they do not support stay as they are. Shapes: N
label positions or tokens, D hidden width, V vocabulary, I and O width in and out, R LoRA rank.
"""

from __future__ import annotations

import threading
import types
from typing import Any

import torch
from torch import Tensor, nn

CHUNK_BYTES = 32 << 20
"""The largest logits buffer. glibc takes larger blocks from the kernel each time: on a virtual machine a 50 MB tensor
cost 20–35 ms of page faults (measured 2026-11-23), more than its matrix product."""


_kept = threading.local()


def _scratch(like: Tensor, rows: int, v: int) -> tuple[Tensor, Tensor]:
    """Two logits buffers, rows × V, in the dtype of `like` and in float32; reused by the next call on a CPU.

    Page faults of new buffers take longer than the products: 47 instead of 97 ms for 330 rows (2026-11-23).
    """
    kept: tuple[Tensor, Tensor] | None = getattr(_kept, "buffers", None)
    fits = kept is not None and kept[0].dtype == like.dtype and kept[0].shape[1] == v and len(kept[0]) >= rows
    if kept is None or not fits or like.device.type != "cpu":
        kept = like.new_empty(rows, v), like.new_empty(rows, v, dtype=torch.float32)
        if like.device.type == "cpu":
            _kept.buffers = kept
    return kept


class _FusedLinearCrossEntropy(torch.autograd.Function):
    """Sum of −log softmax(h Wᵀ)[target] in chunks of rows; gradients in the same pass, so no logits are kept."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
        n, v = hidden_ND.shape[0], weight_VD.shape[0]
        rows = max(1, min(n, CHUNK_BYTES // (4 * v)))
        needs_hidden, needs_weight, _ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        narrow_RV, wide_RV = _scratch(hidden_ND, rows, v)
        for start in range(0, n, rows):
            hidden, target = hidden_ND[start : start + rows], target_N[start : start + rows]
            logits, logs = narrow_RV[: len(target)], wide_RV[: len(target)]
            torch.mm(hidden, weight_VD.t(), out=logits)
            torch.log_softmax(logs.copy_(logits), dim=-1, out=logs)
            total -= logs.gather(1, target[:, None]).sum()
            if not (needs_hidden or needs_weight):
                continue
            logs.exp_()[torch.arange(len(target), device=target.device), target] -= 1.0  # softmax − one hot
            grad = logits.copy_(logs)
            if grad_hidden is not None:
                torch.mm(grad, weight_VD, out=grad_hidden[start : start + rows])
            if grad_weight is not None:
                grad_weight += grad.t() @ hidden
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        grad_hidden, grad_weight = ctx.saved_tensors
        scaled = [None if g is None else g * grad_output.to(g.dtype) for g in (grad_hidden, grad_weight)]
        return (*scaled, None)


def fused_linear_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    """Summed cross-entropy (nats, float32, a scalar) of N label positions, without N × V logits in memory.

    Equals `F.cross_entropy(hidden @ weight.T, target, reduction="sum")`; N may be 0.
    """
    loss: Tensor = _FusedLinearCrossEntropy.apply(hidden_ND, weight_VD, target_N)  # type: ignore[no-untyped-call]
    return loss


class _FusedLinearCrossEntropyPerToken(torch.autograd.Function):
    """−log softmax(h Wᵀ)[target] of each row in chunks; backward recomputes the logits, one chunk at a time."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
        rows = max(1, CHUNK_BYTES // (4 * weight_VD.shape[0]))
        losses, normalizers = [], []
        for hidden, target in zip(torch.split(hidden_ND, rows), torch.split(target_N, rows)):
            logits = (hidden @ weight_VD.t()).float()
            normalizers.append(torch.logsumexp(logits, dim=-1))
            losses.append(normalizers[-1] - logits.gather(1, target[:, None])[:, 0])
        ctx.rows = rows
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, torch.cat(normalizers))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> Any:
        hidden_ND, weight_VD, target_N, normalizer_N = ctx.saved_tensors
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        grad_hidden = []
        parts = (torch.split(part, ctx.rows) for part in (hidden_ND, target_N, normalizer_N, grad_N))
        for hidden, target, normalizer, factor in zip(*parts):
            grad = (hidden @ weight_VD.t()).float().sub_(normalizer[:, None]).exp_()
            grad[torch.arange(len(target), device=target.device), target] -= 1.0
            grad = grad.mul_(factor[:, None]).to(hidden.dtype)
            grad_hidden.append(grad @ weight_VD)
            if grad_weight is not None:
                grad_weight += grad.t() @ hidden
        return torch.cat(grad_hidden), None if grad_weight is None else grad_weight.to(weight_VD.dtype), None


def fused_linear_cross_entropy_per_token(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    """Cross-entropy of each of N label positions, loss_N (nats, float32), without N × V logits in memory.

    Equals `F.cross_entropy(hidden @ weight.T, target, reduction="none")`.
    For objectives that weight rows by their loss.
    """
    losses: Tensor = _FusedLinearCrossEntropyPerToken.apply(hidden_ND, weight_VD, target_N)  # type: ignore[no-untyped-call]
    return losses


SPLIT_ROWS, SPLIT_WIDTH = 512, 1024


def _product(x_NI: Tensor, w_IO: Tensor) -> Tensor:
    """x @ w; wide bfloat16 inputs on a CPU in equal parts of at most 512 rows.

    Above 512 rows oneDNN chooses a slower kernel if the inner dimension is large: 744 × 1536 × 576 takes 1.24 ms,
    in two parts 0.77 ms (measured 2026-11-23, two cores with AMX).
    """
    n = x_NI.shape[0]
    if n <= SPLIT_ROWS or x_NI.shape[1] < SPLIT_WIDTH or x_NI.device.type != "cpu" or x_NI.dtype != torch.bfloat16:
        return x_NI @ w_IO
    y_NO = x_NI.new_empty(n, w_IO.shape[1])
    rows = -(-n // -(-n // SPLIT_ROWS))
    for start in range(0, n, rows):
        torch.mm(x_NI[start : start + rows], w_IO, out=y_NO[start : start + rows])
    return y_NO


class _LoraLinear(torch.autograd.Function):
    """y = x Wᵀ + b + s·(x Aᵀ) Bᵀ, adding to the wide output in place (Hu et al. 2021, equation 3).

    A and B may be float32 (so that small updates are not lost); they are rounded to the dtype of x for the products.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_OI: Tensor, bias: Tensor | None, a_RI: Tensor, b_OR: Tensor, s: float) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        ctx.dtypes = a_RI.dtype, b_OR.dtype
        a_RI, b_OR = a_RI.to(x.dtype), b_OR.to(x.dtype)
        y_NO = _product(x_NI, w_OI.t()) if bias is None else torch.addmm(bias, x_NI, w_OI.t())
        t_NR = x_NI @ a_RI.t()
        y_NO.addmm_(t_NR, b_OR.t(), alpha=s)
        ctx.save_for_backward(x_NI, w_OI, a_RI, b_OR, t_NR)
        ctx.s, ctx.shape = s, x.shape
        # no view, which must not be changed in place afterwards (Llama 4 rotates it so)
        y: Tensor = torch.ops.aten._unsafe_view(y_NO, (*x.shape[:-1], w_OI.shape[0]))
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x_NI, w_OI, a_RI, b_OR, t_NR = ctx.saved_tensors
        dy_NO = grad_y.reshape(-1, grad_y.shape[-1])
        dt_NR = (dy_NO @ b_OR).mul_(ctx.s)
        da_RI, db_OR = dt_NR.t() @ x_NI, (dy_NO.t() @ t_NR).mul_(ctx.s)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _product(dy_NO, w_OI).addmm_(dt_NR, a_RI).view(ctx.shape)
        return dx, None, None, da_RI.to(ctx.dtypes[0]), db_OR.to(ctx.dtypes[1]), None


def fuse_lora(model: nn.Module) -> int:
    """Fuse every plain LoRA linear layer; return how many were changed.

    A layer with dropout, DoRA, several active adapters, a quantized base or a trained bias keeps PEFT's own forward;
    so does every layer while adapters are disabled or merged.
    """
    from peft.tuners.lora import Linear

    fused = 0
    module: Any
    for module in model.modules():
        if type(module) is not Linear or len(module.active_adapters) != 1:
            continue
        name = module.active_adapters[0]
        if name not in module.lora_A or not _is_plain(module, name):
            continue
        module.forward = types.MethodType(_fused_forward(type(module).forward, name), module)
        fused += 1
    return fused


def _is_plain(module: Any, name: str) -> bool:
    base = module.base_layer
    a, b = module.lora_A[name], module.lora_B[name]
    return (
        type(base) is nn.Linear
        and not base.weight.requires_grad
        and not (base.bias is not None and base.bias.requires_grad)
        and isinstance(module.lora_dropout[name], nn.Identity)
        and not module.use_dora.get(name, False)
        and a.weight.dtype == b.weight.dtype
        and a.bias is None
        and b.bias is None
    )


def _fused_forward(plain: Any, name: str) -> Any:
    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or args or kwargs or x.dtype != self.base_layer.weight.dtype:
            result: Tensor = plain(self, x, *args, **kwargs)
            return result
        base, a, b = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        fused: Tensor = _LoraLinear.apply(x, base.weight, base.bias, a, b, self.scaling[name])  # type: ignore[no-untyped-call]
        return fused

    return forward


class _RmsNorm(torch.autograd.Function):
    """y = w · round(x / √(mean x² + ε)), w frozen; sums in float32 (Zhang & Sennrich 2019, equation 4)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.float32, copy=True)
        scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, scale)
        return weight_D * wide.mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight_D, scale = ctx.saved_tensors
        grad, wide = (grad_y * weight_D).to(torch.float32), x.to(torch.float32)
        along = torch.linalg.vecdot(grad, wide).unsqueeze(-1).mul_(scale.pow(3)).div_(x.shape[-1])
        return grad.mul_(scale).addcmul_(wide, along, value=-1).to(x.dtype), None, None


def fuse_norms(model: nn.Module) -> int:
    """Fuse every frozen RMS norm; return how many were changed.

    Backward takes 0.7 instead of 2.1 ms at 744 × 576 (2026-11-23). A norm is fused only if its own forward gives the
    same bits (Gemma's, which scales by 1 + w, is not).
    """
    fused = 0
    module: Any
    for module in model.modules():
        if not type(module).__name__.endswith("RMSNorm") or list(module.children()):
            continue
        weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
        if weight is None or eps is None or weight.requires_grad or weight.is_meta:
            continue
        probe = torch.linspace(-3, 5, 2 * len(weight), device=weight.device).view(2, -1).to(weight.dtype)
        with torch.no_grad():
            if not torch.equal(module(probe), _rms_norm(module, probe)):
                continue
        module.forward = types.MethodType(_rms_norm, module)
        fused += 1
    return fused


def _rms_norm(self: Any, x: Tensor) -> Tensor:
    normed: Tensor = _RmsNorm.apply(x, self.weight, self.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


def fused_modules(model: nn.Module) -> list[Any]:
    """The modules whose forward is a fused one; `del module.forward` gives them their own back."""
    return [m for m in model.modules() if getattr(m.__dict__.get("forward"), "__module__", None) == __name__]
