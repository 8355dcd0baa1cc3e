"""Questions and answers from documents: joins readers, prompts, a model and the dataset that is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartor.base.errors import ConfigError
from sartor.base.system import locked
from sartor.base.types import Message
from sartor.data.generate import run as generating
from sartor.data.generate.documents import read_document
from sartor.data.generate.journal import Journal
from sartor.data.generate.pairs import without_repeats
from sartor.data.generate.run import Completion, Generated
from sartor.data.generate.writing import check_name, write

CHARACTERS = 1200
ANSWER_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Made:
    """What was generated and where it was written; `table` is None when no pair could be used."""

    generated: Generated
    table: Path | None
    dataset_file: Path | None


def generate(
    documents: Sequence[str | Path], name: str, *, dataset_dir: str | Path = "data", encoding: str | None = None,
    language: str = "en", style: str | Path | None = None, per_chunk: int = 2, model: str = "smollm2-135m",
    endpoint: str | None = None, key_env: str | None = None, price_in: float = 0.0, price_out: float = 0.0,
    max_cost: float | None = None, on_start: Callable[[dict[str, Any]], None] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Made:  # fmt: skip
    """Write `<name>.csv` and a registered dataset of grounded pairs; a killed call goes on where it was.

    Raises: DataError, ConfigError, RunError when the spending cap is reached (answers so far are kept).
    """
    from sartor.prompt.check.nearness import near_pairs

    check_name(name)
    if language not in ("en", "zh"):
        raise ConfigError(f"There is no prompt for {language!r}.", "--language", "Write en or zh, or use --style FILE.")
    if key_env and key_env not in os.environ:
        raise ConfigError(f"The variable {key_env} is not set.", "--key-env", f"Set it: export {key_env}=…")
    if max_cost is not None and not (price_in or price_out):
        raise ConfigError("A cap needs prices.", "--max-cost", "Add --price-in and --price-out.")
    prompt = generating.read_style(language, Path(style) if style else None)
    sources = [read_document(Path(document), encoding) for document in documents]
    passages = list(generating.passages_of(sources, CHARACTERS))
    tokens_in = sum(len(passage.text) + len(prompt) for passage in passages)
    tokens_out = ANSWER_TOKENS * len(passages)
    if on_start:
        price = (tokens_in * price_in + tokens_out * price_out) / 1e6
        on_start({"passages": len(passages), "most_tokens_in": tokens_in, "most_tokens_out": tokens_out,
                  "most_money": price})  # fmt: skip
    if endpoint:
        from sartor.data.generate.endpoint import Endpoint

        key = os.environ[key_env] if key_env else None
        complete: Callable[[Sequence[Message]], Completion] = Endpoint(
            endpoint, model, key, most_spent=max_cost, price_in=price_in, price_out=price_out, max_tokens=ANSWER_TOKENS
        )
    else:
        complete = _embedded(model)
    path = Path(dataset_dir) / f"{name}.generated.jsonl"
    with locked(path):
        found = generating.generate(
            passages, complete, Journal(path), model=f"{endpoint or ''} {model}", prompt=prompt,
            per_chunk=per_chunk, progress=progress,
        )  # fmt: skip
        kept, repeats = without_repeats(found.pairs, lambda texts: {near.second for near in near_pairs(texts)})
        found = Generated(tuple(kept), (*found.refused, *repeats), found.failed, found.asked, found.reused)
        table, rows = write(kept, name, Path(dataset_dir)) if kept else (None, None)
    return Made(found, table, rows)


def _embedded(model: str) -> Callable[[Sequence[Message]], Completion]:
    """A local model, loaded when it is first asked."""
    from sartor.base.settings import GenerationSettings

    loaded: list[Any] = []

    def complete(messages: Sequence[Message]) -> Completion:
        from sartor.use.engine import Engine

        if not loaded:
            loaded.append(Engine.load(model))
        answer = loaded[0].chat(messages, GenerationSettings(max_new_tokens=ANSWER_TOKENS // 2))
        return Completion(answer.text, answer.prompt_tokens, answer.tokens)

    return complete
