"""The module that is trained: a model with its loss around it, so that FSDP2 and DeepSpeed see one forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sartor.model.batch import Batch
from sartor.training.reference import Reference


class Objective(nn.Module):
    """Micro-batch → summed loss (a scalar, nats); `Stage.weight` says what it is divided by."""

    def __init__(self, model: nn.Module, reference: Reference | None = None) -> None:
        super().__init__()
        self.model = model
        self.reference = reference  # not a module: neither sharded nor saved
        self.config: Any = getattr(model, "config", None)  # accelerate sizes DeepSpeed's buckets by it

    def forward(self, batch: Batch) -> Tensor:
        """The loss summed over what `batch` holds, never its mean."""
        raise NotImplementedError

    def log_ratios(self, batch: Batch) -> Tensor:
        """For stages with `kl_batches`: Σ over rows of ln π(y)/π_ref(y), without gradients or dropout (a scalar)."""
        raise NotImplementedError
