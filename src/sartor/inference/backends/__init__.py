"""One file per engine that can answer instead of ours.

A file here declares its engine as `PLUGIN`; an installed package declares its own through an entry point:

    [project.entry-points."sartor.backends"]
    my-engine = "my_package.backend:PLUGIN"

The setting `infer_backend` then takes its name. A backend answers the rows of `predict`; chat, serve and compare always
use Sartor's own engine, which measures losses and holds base and tuned weights at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sartor.base.config import RunConfig
from sartor.base.registry import Registry
from sartor.base.settings import GenerationSettings
from sartor.base.types import TokenSequence

if TYPE_CHECKING:
    from sartor.inference.agreement import Agreement
    from sartor.inference.engine import Answer, Engine
    from sartor.inference.weights import WeightSet

OWN_ENGINE = "huggingface"
"""The value of `infer_backend` that means Sartor's own engine (LLaMA-Factory's name for it)."""


@dataclass(frozen=True, slots=True)
class BackendRequest:
    """What a backend is opened for."""

    engine: Engine
    """Sartor's engine with the weights, tokenizer, template and stops that the answers must come from."""
    prompts: Sequence[TokenSequence]
    """All prompts that will be answered; their lengths say how much memory it takes."""
    generation: GenerationSettings
    config: RunConfig
    """The settings of the model: name, revision, permissions."""
    weights: WeightSet = "tuned"
    seed: int = 0


class BackendSession(ABC):
    """An opened backend, which has passed the agreement gate."""

    agreement: Agreement

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[TokenSequence],
        generation: GenerationSettings,
        *,
        weights: WeightSet = "tuned",
        seed: int = 0,
        on_done: Callable[[int, Answer], None] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[Answer]:
        """As `Engine.generate`: answers in the order of the prompts, with the engine's own stops and texts.

        A row's random numbers depend on (seed, `numbers[row]`) alone. `on_done(row, answer)` is called for each answer.
        """


class Backend(ABC):
    """An engine that can answer instead of Sartor's own."""

    name: str
    """The value of `infer_backend`."""

    @abstractmethod
    def open(self, request: BackendRequest) -> AbstractContextManager[BackendSession]:
        """Load the engine's weights, and pass the agreement gate before anything is answered.

        The gate is `sartor.inference.agreement.AgreementGate`. The request's engine may lose its other weights and its
        place on the GPU. Raises: ModelError when the backend is not installed, cannot load the model, or does not
        agree.
        """


BACKENDS: Registry[Backend] = Registry("backend", __name__, Backend)


def chosen_backend(infer_backend: str) -> Backend | None:
    """The backend that a setting names; None for Sartor's own engine. Raises: ConfigError naming the nearest."""
    return None if infer_backend == OWN_ENGINE else BACKENDS.get(infer_backend)
