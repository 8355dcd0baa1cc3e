"""One file per optimizer: its name, what it needs, how much state it keeps, and how it is built.

A file here, or an entry point in the group `sartor.optimizers`, holds `PLUGIN`, an instance of an `OptimizerPlugin`
subclass. Nothing else has to change for a new optimizer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sartor.base.i18n import Text
from sartor.base.registry import Registry
from sartor.base.settings import TrainSettings

if TYPE_CHECKING:  # torch stays out until an optimizer is used: its name alone is checked without it
    from torch.optim import Optimizer


class OptimizerPlugin(ABC):
    """What an optimizer declares, and how it is built."""

    name: str
    """As in `optim: adamw_torch`; also the file's name."""
    label: Text
    """A few words for a menu, made with `tr`."""
    package: str = ""
    """The module that it needs beyond torch."""
    install: str = ""
    """How to install that, as `pip install 'sartor[quant]'`."""
    marks_matrices: bool = False
    """Whether each group says by `hidden_matrix` if it holds matrices between the embedding and the head."""
    examples: tuple[Mapping[str, Any], ...] = ()
    """Settings that train with it; a test parses each of them."""

    @abstractmethod
    def state_bytes(self, number_bytes: float) -> float:
        """Bytes of state for each trained weight, which is kept in numbers of `number_bytes`; the plan counts them."""

    @abstractmethod
    def build(self, groups: Sequence[Mapping[str, Any]], settings: TrainSettings) -> Optimizer:
        """The optimizer over torch's parameter groups; each has its own `lr` and `weight_decay`."""


OPTIMIZERS: Registry[OptimizerPlugin] = Registry(
    "optimizer",
    "sartor.training.optimizers",
    OptimizerPlugin,
)
