"""What is asked of the batcher, and what it reports of each request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sartor.base.errors import SartorError
from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Answer, Row
from sartor.inference.grammars import Grammar, Guide
from sartor.inference.weights import WeightSet


class QueueFull(SartorError):
    """The queue is full."""


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to generate. Its random draws depend only on `seed` and `number`."""

    prompt: tuple[int, ...]
    generation: GenerationSettings
    weights: WeightSet = "tuned"
    seed: int = 0
    number: int = 0
    top_logprobs: int | None = None
    """How many of the most likely tokens to report with each token; None: no log-probabilities."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    grammar: Grammar | None = None
    """What the answer must follow; None: free."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A token, its log-probability before sampling, and the likeliest ones, each (id, log-probability)."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """A request's progress after a step: all text that is final, its new token; at the end the answer."""

    text: str
    token: TokenLogprobs | None = None
    answer: Answer | None = None
    error: str | None = None
    refused: bool = False
    """Whether the error is in the request (its grammar) and not in the batch."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A submitted request. `cancel` may be called from any thread."""

    request: Request
    on_progress: Callable[[Progress], None]
    row: Row
    guide: Guide | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True
