"""Before training, compares our loss and its gradient with those of the model's untouched forward pass.

What differs is turned off piece by piece; where even the model's whole forward pass differs, the model is refused.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from sartor.base.errors import ModelError
from sartor.base.i18n import Text, tr
from sartor.base.types import TokenSequence
from sartor.model import head, shortcuts
from sartor.model.batch import Batch, collate, collate_packs

ROW_TOKENS = (48, 16)
"""Tokens of the rows that are compared. They differ, so that there is padding."""
EXACT, ROUNDED = (2e-5, 5e-4), (2e-2, 1e-1)
"""Relative differences of loss and gradient that rounding explains: in float32, and in other number types."""
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, ImportError)
"""What models raise for inputs that they do not take."""

Score: TypeAlias = Callable[[Any, Batch], Tensor]
"""(model, batch) → what the loss is made of, summed over the batch (a scalar)."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found."""

    off: tuple[shortcuts.Shortcut, ...]
    """The shortcuts that differ."""
    packs: bool
    """Whether packed rows give the loss of single ones."""
    reasons: dict[str, Text]


class _Measured(NamedTuple):
    """A loss and its gradient."""

    loss: float
    norms: Tensor
    """The norm of each trained parameter's gradient (float32)."""

    def is_close(self, other: _Measured, tolerance: tuple[float, float]) -> bool:
        norm = max(float(other.norms.norm()), 1e-12)
        gradient = float((self.norms - other.norms).norm()) / norm
        return abs(self.loss - other.loss) <= tolerance[0] * max(1.0, abs(other.loss)) and gradient <= tolerance[1]


def check_loss(model: Any, rows: Sequence[TokenSequence], score: Score, pad_id: int, *, pack: bool) -> Checked:
    """Compare on two shortened rows, in evaluation mode (without dropout), in float32 where memory allows. The model
    is left as it was.

    Raises: ModelError where the loss differs with every shortcut off, or cannot be compared.
    """
    training = model.training
    model.eval()
    try:
        with _in_float32(model) as exact, _autocast(model, not exact):
            return _Check(model, shortened(rows), score, pad_id, EXACT if exact else ROUNDED).run(pack)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)


def shortened(rows: Sequence[TokenSequence]) -> list[TokenSequence]:
    """The beginnings of the first rows, each token a label: what leaks from one example shows in the next one's first
    tokens."""
    pieces = [rows[number % len(rows)].ids[:tokens] for number, tokens in enumerate(ROW_TOKENS)]
    return [TokenSequence(ids, ((0, len(ids)),)) for ids in pieces]


class _Check:
    """One model and its rows."""

    def __init__(
        self, model: Any, rows: list[TokenSequence], score: Score, pad_id: int, tolerance: tuple[float, float]
    ) -> None:
        self.model, self.rows, self.score, self.pad_id, self.tolerance = model, rows, score, pad_id, tolerance
        self.device = next(model.parameters()).device
        self.trained = [p for p in model.parameters() if p.requires_grad]

    def run(self, pack: bool) -> Checked:
        own, used = self._own(), shortcuts.in_use(self.model)
        padded = collate(self.rows, range(len(self.rows)), self.pad_id)
        reasons: dict[str, Text] = {}
        for off in (off for size in range(len(used) + 1) for off in itertools.combinations(used, size)):
            difference = self._difference(own, padded, off)
            if difference is None:
                break
            reasons.setdefault("loss", difference)
        else:
            raise _refused(difference or Text(""), self.model)
        if not pack:
            return Checked(off, False, reasons)
        packed = collate_packs(self.rows, [range(len(self.rows))], self.pad_id)
        difference = self._difference(own, packed, off)
        if difference and "unpadded" in used and not self._difference(own, packed, (*off, "unpadded")):
            return Checked((*off, "unpadded"), True, reasons | {"loss": difference})
        return Checked(off, difference is None, reasons | ({"packing": difference} if difference else {}))

    def _own(self) -> _Measured:
        """Row by row, nothing padded, nothing of ours. Raises: ModelError."""
        causal, total = head.causal_model(self.model), 0.0
        try:
            with shortcuts.without(self.model, shortcuts.SHORTCUTS), torch.enable_grad():
                self.model.zero_grad(set_to_none=True)
                for row in self.rows:
                    total += self._backward(_own_score(causal, row, self.device))
                if not _is_causal(causal, self.rows[-1], self.device):
                    raise ValueError("its tokens attend to later ones")
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            raise _refused(tr("its own forward pass fails: {error}", error=_line(error)), self.model) from error
        return _Measured(total, self._norms())

    def _difference(self, own: _Measured, batch: Batch, off: Sequence[str]) -> Text | None:
        """How our loss without `off` differs from the model's own; None: it does not."""
        try:
            with shortcuts.without(self.model, off), torch.enable_grad():
                self.model.zero_grad(set_to_none=True)
                ours = _Measured(self._backward(self.score(self.model, batch.to(self.device))), self._norms())
        except FAILURES as error:
            return tr("it fails: {error}", error=_line(error))
        if ours.is_close(own, self.tolerance):
            return None
        return tr(
            "loss {ours:.4f} against {own:.4f}, gradient norm {our_norm:.4f} against {own_norm:.4f}",
            ours=ours.loss,
            own=own.loss,
            our_norm=float(ours.norms.norm()),
            own_norm=float(own.norms.norm()),
        )

    def _backward(self, loss: Tensor) -> float:
        if self.trained and loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        return value if math.isfinite(value) else math.inf

    def _norms(self) -> Tensor:
        zero = torch.zeros((), device=self.device)
        norms = [zero if p.grad is None else p.grad.float().norm() for p in self.trained]
        return torch.stack(norms) if norms else zero[None]


def _own_score(causal: Any, row: TokenSequence, device: torch.device) -> Tensor:
    """The model's own loss summed over the row's labels, or its own score of the row.

    Raises: ValueError if its loss is not the mean over the next tokens.
    """
    ids_1T = torch.from_numpy(row.ids.astype("int64"))[None].to(device)
    if hasattr(causal, "score"):
        rewards: Tensor = causal(input_ids=ids_1T, use_cache=False).logits.float()
        return rewards.sum()
    labels_1T = torch.from_numpy(row.labels.astype("int64"))[None].to(device)
    output = causal(input_ids=ids_1T, labels=labels_1T, use_cache=False)
    summed = F.cross_entropy(output.logits[0, :-1].float(), labels_1T[0, 1:], reduction="sum")
    own = float(output.loss.detach()) * row.label_tokens
    if abs(own - float(summed.detach())) > 1e-2 * max(1.0, abs(own)):
        raise ValueError(f"its loss ({own:.4f}) is not that of the next tokens ({float(summed.detach()):.4f})")
    return summed


@torch.no_grad()
def _is_causal(causal: Any, row: TokenSequence, device: torch.device) -> bool:
    """Whether the last token leaves the logits before it as they are."""
    if hasattr(causal, "score"):
        return True
    ids_2T = torch.from_numpy(row.ids.astype("int64"))[None].repeat(2, 1).to(device)
    ids_2T[1, -1] = ids_2T[1, 0] if ids_2T[1, 0] != ids_2T[1, -1] else ids_2T[1, 0] + 1
    one, other = causal(input_ids=ids_2T, use_cache=False).logits[:, :-1].float()
    return bool((one - other).norm() <= 1e-2 * one.norm())


@contextmanager
def _in_float32(model: Any) -> Iterator[bool]:
    """While the block runs, the weights are float32, so that rounding hides nothing; yields whether they are.

    Quantized weights stay as they are, and so does a model for which that would take half of the free memory.
    """
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.dtype in (torch.bfloat16, torch.float16)]
    narrow = [(tensor, tensor.dtype) for tensor in tensors]
    possible = all(p.is_floating_point() and p.dtype.itemsize > 1 for p in model.parameters())
    possible = possible and sum(t.nbytes for t, _ in narrow) < _free_bytes(model) / 2
    try:
        for tensor, _ in narrow if possible else ():
            tensor.data = tensor.data.float()
        yield possible
    finally:
        for tensor, dtype in narrow if possible else ():
            tensor.data = tensor.data.to(dtype)  # exactly what it was


def _autocast(model: Any, rounded: bool) -> Any:
    """As in training where some of the weights are trained in float32 (freeze); LoRA's own arithmetic needs none."""
    mixed = len({p.dtype for p in model.parameters() if p.is_floating_point()}) > 1
    enabled = rounded and mixed and not hasattr(model, "peft_config")
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=enabled)


def _free_bytes(model: Any) -> int:
    """The free memory of the device that the model is on, or of the machine."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _refused(reason: Text, model: Any) -> ModelError:
    causal = head.causal_model(model)
    return ModelError(
        "The loss of this model cannot be reproduced ({reason}).",
        f"{type(causal).__name__} (model_type: {causal.config.model_type})",
        "Train a causal language model; encoders and models that need more than text are not supported.",
        code="loss-differs",
        reason=reason,
    )


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
