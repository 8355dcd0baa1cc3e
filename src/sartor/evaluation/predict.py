"""Generates and scores answers for held-out rows, and writes them in LLaMA-Factory's files and fields."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sartor.base.config import RunConfig
from sartor.base.errors import DataError, RunError
from sartor.base.files import atomic_write
from sartor.base.forecast import AnswersPart, BatchForecast, ShowsTimeLeft
from sartor.base.i18n import tr
from sartor.base.locks import file_lock
from sartor.base.settings import GenerationSettings
from sartor.base.types import Demonstration, Prediction, Score, TokenSequence
from sartor.evaluation.journal import Journal, Shard, journal_name, row_key
from sartor.evaluation.score import Scorer, score_json
from sartor.inference.agreement import Agreement
from sartor.inference.backends import Backend, BackendRequest
from sartor.inference.engine import BATCH_ROWS, Answer, Engine
from sartor.inference.weights import WeightSet


@dataclass(frozen=True, slots=True)
class ChosenBackend:
    """The backend that answers instead of the engine, and the settings whose model it loads."""

    backend: Backend
    config: RunConfig


FIELD_DESCRIPTIONS = {
    "predict_runtime": "seconds spent generating and scoring, without loading the model",
    "predict_samples_per_second": "rows / predict_runtime",
    "predict_steps_per_second": "batches / predict_runtime",
    "predict_model_preparation_time": "seconds spent switching and merging weights before the first batch, without "
    "loading them from disk",
}
"""What LLaMA-Factory's four timing fields mean; written next to them in the file."""
LLAMA_FACTORY = {
    "predict_bleu-4": "bleu-4",
    "predict_rouge-1": "rouge-1",
    "predict_rouge-2": "rouge-2",
    "predict_rouge-l": "rouge-l",
}


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers with their scores, and the folder they are in. `results` is the content of predict_results.json."""

    rows: list[Prediction]
    scores: dict[str, Score]
    folder: Path
    results: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How rows are answered and scored.

    `training_ids` are the rows that the model was trained on (they are marked), `losses` row id → nats per token.
    With a `shard`, only its rows are answered; `merge` joins the journals of all shards and refuses missing rows.
    `backend` answers the prompts that still need an answer instead of the engine. `forecast` counts the answers of
    several calls together, and has a part for this one.
    """

    generation: GenerationSettings = field(default_factory=GenerationSettings)
    weights: WeightSet = "tuned"
    seed: int = 0
    metrics: tuple[str, ...] = ("all",)
    training_ids: frozenset[str] = frozenset()
    losses: Mapping[str, float] = field(default_factory=dict)
    shard: Shard | None = None
    merge: bool = False
    backend: ChosenBackend | None = None
    forecast: BatchForecast | None = None


def predict(
    engine: Engine,
    examples: Sequence[Demonstration],
    folder: Path,
    options: PredictOptions = PredictOptions(),
    *,
    progress: Callable[[int, int | None], None] | None = None,
) -> Predictions:
    """Answer the last turn of every example, score the answers, and write the folder.

    Each answer is journaled when it is finished, so the same call resumes after it was killed. A call without a
    `shard` takes the journals of all shards in the folder together.

    Raises: DataError when an example does not end with an answer; PromptError; RunError on a full disk.
    """
    started = time.perf_counter()
    engine.weights.use(options.weights)
    fingerprint = engine.weights.fingerprint()
    prepared = time.perf_counter()
    with file_lock(folder / journal_name(options.shard)):  # else two calls would answer the same rows
        answered = _answer_rows(engine, examples, folder, options, progress)
    known, mine = answered.journal.known, answered.places
    rows = [_prediction(engine, examples[place], known[place], options) for place in mine]
    scorer = Scorer(options.metrics)
    per_row = [scorer.add(row.text, row.reference) for row in rows]
    scores = scorer.result()
    seconds = max(time.perf_counter() - prepared, 1e-9)
    results = {
        **_results(rows, scores),
        "predict_runtime": round(seconds, 4),
        "predict_samples_per_second": round((len(rows) - answered.resumed) / seconds, 3),
        "predict_steps_per_second": round(-(-len(rows) // BATCH_ROWS) / seconds, 3),
        "predict_model_preparation_time": round(prepared - started, 4),
        "explained": FIELD_DESCRIPTIONS,
        "generation": options.generation.model_dump(),
        "weights": options.weights,
        "fingerprint": fingerprint,
        "dtype": str(engine.model.dtype).removeprefix("torch."),
        "template": engine.template.name,
        "scores": {name: score_json(score) for name, score in scores.items()},
        "resumed": answered.resumed,
        "batch_rows": BATCH_ROWS,
    }
    if options.backend:
        agreement = asdict(answered.agreement) if answered.agreement else None
        results |= {"backend": options.backend.backend.name, "agreement": agreement}
    results |= _by_dataset([examples[place].origin.dataset for place in mine], rows, per_row, options.metrics)
    if options.shard is None:
        write(folder, rows, per_row, results)
        answered.journal.remove()
    return Predictions(rows, scores, folder, results)


@dataclass(frozen=True, slots=True)
class _Answered:
    """Journaled answers, the places of this call's rows, how many were known before, and how far a backend agreed."""

    journal: Journal
    places: range
    resumed: int
    agreement: Agreement | None


def _answer_rows(
    engine: Engine,
    examples: Sequence[Demonstration],
    folder: Path,
    options: PredictOptions,
    progress: Callable[[int, int | None], None] | None,
) -> _Answered:
    """Answer the rows that no journal has an answer for."""
    settings, weights, seed = options.generation, options.weights, options.seed
    prompts = [engine.prompt(_before_answer(example), example.tools) for example in examples]
    journal = Journal(folder, _keys(engine, examples, prompts, options), options.shard)
    mine = options.shard.rows(len(examples)) if options.shard else range(len(examples))
    missing = [place for place in mine if place not in journal.known]
    if options.merge and missing:
        raise RunError(
            "{missing} of {total} rows have no answer yet.",
            folder,
            "The first is {row}: run its shard, or leave out --merge.",
            missing=len(missing),
            total=len(examples),
            row=examples[missing[0]].origin.id,
        )
    finished = itertools.count(len(mine) - len(missing) + 1)

    forecast = options.forecast or BatchForecast([AnswersPart(len(mine), settings.max_new_tokens)], BATCH_ROWS)
    forecast.begin(len(missing))

    def on_done(number: int, answer: Answer) -> None:
        journal.add(missing[number], answer)
        forecast.answered(answer.tokens)
        if isinstance(progress, ShowsTimeLeft):
            progress.time_left(forecast.left_s())
        if progress:
            progress(next(finished), len(mine))

    wanted, agreement = [prompts[place] for place in missing], None
    if options.backend and wanted:
        request = BackendRequest(engine, wanted, settings, options.backend.config, weights, seed)
        with options.backend.backend.open(request) as session:
            session.generate(wanted, settings, weights=weights, seed=seed, on_done=on_done, numbers=missing)
            agreement = session.agreement
    else:
        engine.generate(wanted, settings, weights=weights, seed=seed, on_done=on_done, numbers=missing)
    return _Answered(journal, mine, len(mine) - len(missing), agreement)


def _keys(
    engine: Engine, examples: Sequence[Demonstration], prompts: Sequence[TokenSequence], options: PredictOptions
) -> list[str]:
    """Each row's key in the journal."""
    decided_by = {
        "fingerprint": engine.fingerprint(options.weights),
        "dtype": str(engine.model.dtype),
        "generation": options.generation.model_dump(),
        "seed": options.seed,
        **({"backend": options.backend.backend.name} if options.backend else {}),
    }
    return [
        row_key(decided_by, place, example.origin.id, prompt.ids.tobytes())
        for place, (example, prompt) in enumerate(zip(examples, prompts, strict=True))
    ]


def write(
    folder: Path, rows: Sequence[Prediction], per_row: Sequence[Mapping[str, float]], results: Mapping[str, Any]
) -> None:
    """Write generated_predictions.jsonl and predict_results.json, each atomically."""
    lines = [
        {
            "prompt": row.prompt,
            "predict": row.text,
            "label": row.reference,
            "id": row.id,
            "question": row.question,
            "reasoning": row.reasoning,
            "loss": _finite(row.loss),
            "scores": {name: _finite(value) for name, value in scores.items()},
            "stop_reason": row.stop_reason,
            "prompt_tokens": row.prompt_tokens,
            "tokens": row.tokens,
            "seen_in_training": row.seen_in_training,
            "section": row.section,
        }
        for row, scores in zip(rows, per_row, strict=True)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    atomic_write(folder / "generated_predictions.jsonl", text)
    atomic_write(folder / "predict_results.json", json.dumps(results, ensure_ascii=False, indent=2) + "\n")


def _finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None


def _before_answer(example: Demonstration) -> tuple[Any, ...]:
    if example.messages[-1].role != "assistant":
        raise DataError("The row does not end with an answer to compare with.", example.origin, "Add one.")
    return example.messages[:-1]


def _prediction(engine: Engine, example: Demonstration, answer: Answer, options: PredictOptions) -> Prediction:
    turns = _before_answer(example)
    return Prediction(
        id=example.origin.id,
        prompt=engine.template.render(turns, example.tools, generation=True),
        question=next((turn.text for turn in reversed(turns) if turn.role == "user"), ""),
        reference=example.messages[-1].text,
        text=answer.text,
        stop_reason=answer.stop_reason,
        prompt_tokens=answer.prompt_tokens,
        tokens=answer.tokens,
        reasoning=answer.reasoning,
        seen_in_training=example.origin.id in options.training_ids,
        section=example.origin.section,
        loss=options.losses.get(example.origin.id),
    )


def _results(rows: Sequence[Prediction], scores: Mapping[str, Score]) -> dict[str, Any]:
    """The counts and LLaMA-Factory's scores in predict_results.json."""
    seen = sum(row.seen_in_training for row in rows)
    results: dict[str, Any] = {}
    if seen:
        warning = tr(
            "{seen} of {total} rows were trained on: their scores show memorization, not skill.",
            seen=seen,
            total=len(rows),
        )
        results["warning"] = warning.render("en")
    results |= {theirs: round(scores[ours].value, 4) for theirs, ours in LLAMA_FACTORY.items() if ours in scores}
    return results | {
        "rows": len(rows),
        "seen_in_training": seen,
        "stopped_at_limit": sum(row.stop_reason == "length" for row in rows),
    }


def _by_dataset(
    datasets: Sequence[str],
    rows: Sequence[Prediction],
    per_row: Sequence[Mapping[str, float]],
    metrics: Sequence[str],
) -> dict[str, Any]:
    """The scores of each dataset, if there are several."""
    parts: dict[str, Scorer] = {}
    for dataset, row, scored in zip(datasets, rows, per_row, strict=True):
        scoring = parts.setdefault(dataset, Scorer(tuple(metrics)))
        scoring.add_scored(row.text, row.reference, scored)
    if len(parts) < 2:
        return {}
    found = {name: (scoring.pairs, scoring.result()) for name, scoring in parts.items()}
    return {
        "datasets": {
            name: {"rows": len(pairs), "scores": {metric: score_json(score) for metric, score in scores.items()}}
            for name, (pairs, scores) in found.items()
        }
    }
