"""The reference model of preference losses: the weights as they were before the first step, or another model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Reference:
    """The model as the run began, or another one (`ref_model`).

    A fresh LoRA is disabled while the reference computes. Otherwise (full, freeze, PiSSA, a continued adapter,
    additional modules) a copy of the trained weights is kept, and put in place while the reference computes.
    """

    def __init__(self, model: nn.Module, other: nn.Module | None = None) -> None:
        self._other = other.requires_grad_(False).eval() if other is not None else None
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._switch = other is None and all(
            ("lora_A" in name or "lora_B" in name) and not ("lora_B" in name and bool(p.any()))
            for name, p in trained.items()
        )
        keep = other is None and not self._switch
        self._start = [(p, p.detach().clone()) for p in trained.values()] if keep else []

    @property
    def keeps_a_copy(self) -> bool:
        return bool(self._start)

    @contextmanager
    def of(self, model: Any) -> Iterator[Any]:
        """The reference, without gradients or dropout, while the block runs; `model` is the one being trained."""
        if self._other is not None:
            with torch.no_grad():
                yield self._other
            return
        training = model.training
        now = [p.data for p, _ in self._start]
        model.eval()
        for parameter, start in self._start:
            parameter.data = start
        try:
            with torch.no_grad():
                if self._switch:
                    with model.disable_adapter():
                        yield model
                else:
                    yield model
        finally:
            for (parameter, _), data in zip(self._start, now, strict=True):
                parameter.data = data
            model.train(training)
