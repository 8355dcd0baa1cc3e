"""Questions and answers from documents: joins readers, prompts, a model and the dataset that is written."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartor.base.errors import ConfigError
from sartor.base.files import file_lock
from sartor.base.types import Message
from sartor.qa_generation import run as generating
from sartor.qa_generation.documents import read_document
from sartor.qa_generation.journal import Journal
from sartor.qa_generation.output import check_name, write
from sartor.qa_generation.pairs import GroundedPair, Passage
from sartor.qa_generation.prompt_files import LANGUAGES, Prompt, language_of, read_prompt
from sartor.qa_generation.requests_plan import (
    CALL_S,
    SMALL_CALL_S,
    Estimate,
    pairs_per_passage,
    passages_of,
    spread_order,
    tasks_of,
)
from sartor.qa_generation.requests_plan import estimate as estimate_tasks
from sartor.qa_generation.run import Complete, Completion, GenerationOutcome

CHARACTERS = 1200
ANSWER_TOKENS = 1024
SMALL_TOKENS = 80
EMBEDDED = "smollm2-135m"
WORKERS = 8


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """What was generated and where it was written; `table` is None when no pair could be used."""

    generated: GenerationOutcome
    table: Path | None
    dataset_file: Path | None
    spent: float = 0.0
    """Money, by the prices given."""


@dataclass(frozen=True, slots=True)
class GenerationSetup:
    """What one run asks about, of whom, and how."""

    passages: list[Passage]
    prompt: Prompt
    journal: Journal
    model: str
    max_tokens: int
    workers: int


def estimate_generation(
    documents: Sequence[str | Path],
    name: str = "generated",
    *,
    dataset_dir: str | Path = "data",
    encoding: str | None = None,
    language: str | None = None,
    prompt: str | Path | None = None,
    style: str | Path | None = None,
    per_chunk: int | None = None,
    pairs: int | None = None,
    multi_turn: bool = False,
    model: str = EMBEDDED,
    endpoint: str | None = None,
    price_in: float = 0.0,
    price_out: float = 0.0,
    workers: int = WORKERS,
) -> Estimate:
    """Passages, requests, tokens, seconds and money that `generate` with these arguments would need; asks nothing.

    Raises: DataError, ConfigError.
    """
    asking = _set_up(
        documents, name, Path(dataset_dir), encoding, language, prompt, style, multi_turn, model, endpoint, workers
    )
    return _estimate(asking, per_chunk, pairs, multi_turn, price_in, price_out)


def generate(
    documents: Sequence[str | Path],
    name: str,
    *,
    dataset_dir: str | Path = "data",
    encoding: str | None = None,
    language: str | None = None,
    prompt: str | Path | None = None,
    style: str | Path | None = None,
    per_chunk: int | None = None,
    pairs: int | None = None,
    multi_turn: bool = False,
    model: str = EMBEDDED,
    endpoint: str | None = None,
    key_env: str | None = None,
    price_in: float = 0.0,
    price_out: float = 0.0,
    max_cost: float | None = None,
    workers: int = WORKERS,
    stop: threading.Event | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
    on_pair: Callable[[GroundedPair], None] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> GenerationResult:
    """Write `<name>.csv` and a registered dataset of grounded pairs; a killed call goes on where it was.

    `per_chunk` questions for each passage (two), or `pairs` in all, spread over the passages; `multi_turn` makes
    conversations. Without an `endpoint` a local model is asked; the embedded one only shows how it works. `language`
    is the prompt's, found from the documents when None. `on_estimate` hears what will be needed before anything is
    asked, and again with the time measured of the first answer; `on_pair` hears each pair with its passage and quote
    as it is accepted, `progress` (done, in all). Setting `stop` ends the run in order: what is in flight is kept, and
    what there is gets written; so it is when the spending cap is reached (`Made.generated.stopped` says which).

    Raises: DataError, ConfigError.
    """
    check_name(name)
    if key_env and key_env not in os.environ:
        raise ConfigError(f"The variable {key_env} is not set.", "--key-env", f"Set it: export {key_env}=…")
    if max_cost is not None and not (price_in or price_out):
        raise ConfigError("A cap needs prices.", "--max-cost", "Add --price-in and --price-out.")
    folder = Path(dataset_dir)
    asking = _set_up(documents, name, folder, encoding, language, prompt, style, multi_turn, model, endpoint, workers)
    expected = _estimate(asking, per_chunk, pairs, multi_turn, price_in, price_out)

    def told(found: Estimate) -> None:
        if on_estimate:
            on_estimate(found)

    told(expected)
    stop = stop or threading.Event()
    complete: Complete
    if endpoint:
        from sartor.qa_generation.endpoint import Endpoint

        complete = Endpoint(
            endpoint,
            model,
            os.environ[key_env] if key_env else None,
            most_spent=max_cost,
            price_in=price_in,
            price_out=price_out,
            max_tokens=asking.max_tokens,
            workers=asking.workers,
            stop=stop,
        )
    else:
        complete = _embedded(model)
        if expected.calls and isinstance(complete, LocalModel):
            complete.load()
    path = asking.journal.path
    with file_lock(path):
        found = generating.generate(
            asking.passages,
            complete,
            _journal(folder, name),
            model=asking.model,
            prompt=asking.prompt,
            per_chunk=per_chunk,
            pairs=pairs,
            multi_turn=multi_turn,
            workers=asking.workers,
            stop=stop,
            on_pair=on_pair,
            on_measured=lambda seconds: told(expected.measured(seconds, asking.workers)),
            progress=progress,
        )
        table, rows = write(found.pairs, name, folder) if found.pairs else (None, None)
    return GenerationResult(found, table, rows, float(getattr(complete, "spent", 0.0)))


def _set_up(
    documents: Sequence[str | Path],
    name: str,
    folder: Path,
    encoding: str | None,
    language: str | None,
    prompt: str | Path | None,
    style: str | Path | None,
    multi_turn: bool,
    model: str,
    endpoint: str | None,
    workers: int,
) -> GenerationSetup:
    if language is not None and language not in LANGUAGES:
        raise ConfigError(
            f"There is no prompt for {language!r}.", "--language", "Write en or zh, or use --prompt FILE."
        )
    sources = [read_document(Path(document), encoding) for document in documents]
    passages = passages_of(sources, CHARACTERS)
    language = language or language_of(passage.text for passage in passages)
    asked = read_prompt(
        language,
        Path(prompt) if prompt else None,
        Path(style) if style else None,
        multi_turn=multi_turn,
        small=endpoint is None and model == EMBEDDED,
    )
    limit = SMALL_TOKENS if asked.by_sentence else ANSWER_TOKENS if endpoint else ANSWER_TOKENS // 2
    return GenerationSetup(
        passages, asked, _journal(folder, name), f"{endpoint or ''} {model}", limit, workers if endpoint else 1
    )


def _journal(folder: Path, name: str) -> Journal:
    """What other datasets of the folder were paid for is not paid for again."""
    path = folder / f"{name}.generated.jsonl"
    return Journal(path, (other for other in sorted(folder.glob("*.generated.jsonl")) if other != path))


def _estimate(
    asking: GenerationSetup,
    per_chunk: int | None,
    pairs: int | None,
    multi_turn: bool,
    price_in: float,
    price_out: float,
) -> Estimate:
    gather = multi_turn and asking.prompt.by_sentence
    each = pairs_per_passage(pairs, per_chunk, len(asking.passages), gather)
    order = [asking.passages[n] for n in spread_order(len(asking.passages))] if pairs is not None else asking.passages
    wanted = pairs * each if pairs is not None and gather else pairs
    return estimate_tasks(
        tasks_of(order, asking.prompt, each),
        asking.journal,
        model=asking.model,
        max_tokens=asking.max_tokens,
        pairs=wanted,
        price_in=price_in,
        price_out=price_out,
        workers=asking.workers,
        call_s=SMALL_CALL_S if asking.prompt.by_sentence else CALL_S,
    )


def _embedded(model: str) -> Complete:
    """A local model."""
    return LocalModel(model)


class LocalModel:
    """Completes one conversation at a time on this machine."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._engine: Any = None

    def load(self) -> Any:
        """Load the model, once; before the first answer is timed."""
        if self._engine is None:
            from sartor.inference.engine import Engine

            self._engine = Engine.load(self.model)
        return self._engine

    def __call__(self, messages: Sequence[Message]) -> Completion:
        """Greedy: the same question gets the same answer."""
        from sartor.base.settings import GenerationSettings

        limit = SMALL_TOKENS if len(messages) > 2 else ANSWER_TOKENS // 2  # shown examples: short answers
        answer = self.load().chat(messages, GenerationSettings(max_new_tokens=limit))
        return Completion(answer.text, answer.prompt_tokens, answer.tokens)
