"""`generate`: grounded question–answer pairs from documents, asked of an endpoint or a local model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from sartor.base.api_keys import read_key
from sartor.base.files import system_errors
from sartor.base.locks import file_lock
from sartor.base.settings import GenerationSettings
from sartor.base.types import Completion, Message
from sartor.qa_generation import run as qa_run
from sartor.qa_generation.budget import Maximum
from sartor.qa_generation.endpoint import PacedEndpoint
from sartor.qa_generation.journal import Journal
from sartor.qa_generation.output import check_name, write
from sartor.qa_generation.pairs import GroundedPair
from sartor.qa_generation.requests_plan import (
    LOCAL_ANSWER_TOKENS,
    SMALL_ANSWER_TOKENS,
    Estimate,
    GenerationPlan,
    make_plan,
    maximum,
)
from sartor.qa_generation.requests_plan import estimate as estimate_plan
from sartor.qa_generation.run import Complete, GenerationOutcome, Hooks
from sartor.qa_generation.settings import GenerationKeywords, QAGenerationSettings

if TYPE_CHECKING:
    from sartor.inference.engine import Engine


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """What was generated and where it was written; the paths are None when no pair could be used."""

    generated: GenerationOutcome
    table: Path | None
    dataset_file: Path | None
    spent: float = 0.0
    """Money, by the given prices."""


@system_errors()
def estimate_generation(
    documents: Sequence[str | Path], name: str = "generated", **settings: Unpack[GenerationKeywords]
) -> Estimate:
    """Passages, requests, tokens, seconds and money that `generate` with these arguments would need; sends nothing.

    Raises: DataError, ConfigError.

    Example:
        >>> sartor.estimate_generation(["novel.txt"], "novel").calls  # doctest: +SKIP
    """
    plan = make_plan(documents, QAGenerationSettings.from_keywords(name, settings))
    return estimate_plan(plan, Journal.open(plan.settings.dataset_dir, name))


@system_errors()
def generate(
    documents: Sequence[str | Path],
    name: str,
    *,
    stop: threading.Event | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
    on_pair: Callable[[GroundedPair], None] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    **settings: Unpack[GenerationKeywords],
) -> GenerationResult:
    """Write `<name>.csv` and a registered dataset of grounded pairs; a call that was killed continues where it was.

    The other keywords are those of `GenerationKeywords`: `per_chunk` questions on each passage (2), or `pairs` in
    all, spread over the passages; `multi_turn` makes conversations. Without an `endpoint` a local model answers; the
    embedded one only shows how it works. `language` is the prompt's, detected from the documents when None.

    `on_estimate` gets what the run will need before anything is sent, and its time again as answers come in;
    `on_pair` gets each accepted pair, `progress` what is done and the total. Setting `stop`, or reaching `max_cost`,
    ends the run in order: requests in flight are kept, and the pairs so far are written (`generated.stopped`).

    Raises: DataError, ConfigError.

    Example:
        >>> sartor.generate(["novel.txt"], "novel", endpoint="http://127.0.0.1:8000/v1", model="m")  # doctest: +SKIP
    """
    check_name(name)
    read_key(
        settings.get("endpoint") or "http://localhost", settings.get("key_env"), trusted=True
    )  # before documents are read
    given = QAGenerationSettings.from_keywords(name, settings)
    plan = make_plan(documents, given)
    journal = Journal.open(given.dataset_dir, name)
    expected = estimate_plan(plan, journal)
    hooks = Hooks(
        stop or threading.Event(),
        on_pair,
        (lambda seconds: on_estimate(expected.measured(seconds))) if on_estimate else None,
        progress,
    )
    complete, spent = _model_of(plan, hooks.stop, maximum(plan, journal))
    if expected.calls and isinstance(complete, LocalModel):
        complete.load()
    if on_estimate:
        on_estimate(expected)
    with file_lock(journal.path):
        # Read again: another process may have added answers before the lock was free.
        found = qa_run.generate(plan, complete, Journal.open(given.dataset_dir, name), hooks)
        table, rows = write(found.pairs, name, given.dataset_dir) if found.pairs else (None, None)
    return GenerationResult(found, table, rows, spent())


def _model_of(plan: GenerationPlan, stop: threading.Event, most: Maximum) -> tuple[Complete, Callable[[], float]]:
    """The function that answers, with at most so much, and one that tells what it has cost so far."""
    settings = plan.settings
    if settings.endpoint:
        endpoint = PacedEndpoint(
            settings.endpoint, max_tokens=plan.max_tokens, workers=plan.workers, maximum=most, stop=stop
        )
        return endpoint, lambda: endpoint.budget.spent
    return _embedded(settings.model), lambda: 0.0


def _embedded(model: str) -> Complete:
    """A local model."""
    return LocalModel(model)


class LocalModel:
    """Completes one conversation at a time on this machine."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._engine: Engine | None = None

    def load(self) -> Engine:
        """Load the model, once; call it before the first answer is timed."""
        if self._engine is None:
            from sartor.inference.engine import Engine

            self._engine = Engine.load(self.model)
        return self._engine

    def __call__(self, messages: Sequence[Message]) -> Completion:
        """Greedy decoding: the same question gets the same answer."""
        # A small model's prompt shows examples before the question, and its answers are short.
        limit = SMALL_ANSWER_TOKENS if len(messages) > 2 else LOCAL_ANSWER_TOKENS
        answer = self.load().chat(messages, GenerationSettings(max_new_tokens=limit))
        return Completion(answer.text, answer.prompt_tokens, answer.tokens)
