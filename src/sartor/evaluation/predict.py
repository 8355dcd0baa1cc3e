"""Predict: held-out rows answered and scored into files with LLaMA-Factory's fields and ours; trains nothing."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError, RunError
from sartor.base.files import atomic_write
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.settings import GenerationSettings
from sartor.base.types import Demonstration, Prediction, Score
from sartor.evaluation.journal import Journal, Shard, row_key
from sartor.evaluation.score import Scorer
from sartor.inference.backends import Agreement, Backend, BackendRequest
from sartor.inference.engine import BATCH_ROWS, Answer, Engine
from sartor.inference.weights import WeightSet


@dataclass(frozen=True, slots=True)
class ChosenBackend:
    """The backend that answers instead of the engine, and what it loads."""

    backend: Backend
    model: str
    permissions: Permissions = NOTHING_ALLOWED


FIELD_DESCRIPTIONS = {
    "predict_runtime": "seconds of generating and scoring; loading the model is not in it",
    "predict_samples_per_second": "rows / predict_runtime",
    "predict_steps_per_second": "batches / predict_runtime",
    "predict_model_preparation_time": "seconds of switching and merging weights before the first batch; "
    "it is not the time of loading them from disk",
}
"""What the four numbers are that LLaMA-Factory prints without a word; they stand beside them in the file."""
LLAMA_FACTORY = {
    "predict_bleu-4": "bleu-4",
    "predict_rouge-1": "rouge-1",
    "predict_rouge-2": "rouge-2",
    "predict_rouge-l": "rouge-l",
}


@dataclass(frozen=True, slots=True)
class Predictions:
    """What was answered, scored, and where it stands. `results` is what predict_results.json holds."""

    rows: list[Prediction]
    scores: dict[str, Score]
    folder: Path
    results: Mapping[str, Any]


def predict(
    engine: Engine,
    examples: Sequence[Demonstration],
    folder: Path,
    *,
    generation: GenerationSettings | None = None,
    weights: WeightSet = "tuned",
    learned_ids: frozenset[str] = frozenset(),
    metrics: Sequence[str] = ("all",),
    seed: int = 0,
    losses: Mapping[str, float] | None = None,
    shard: Shard | None = None,
    merge: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    backend: ChosenBackend | None = None,
) -> Predictions:
    """Answer the last turn of every example, score, and write the folder; `losses` (row id → nats per token) go along.

    Each answer is journalled as it is finished: the same call goes on where a killed one stopped. A `shard` answers its
    rows only and leaves its journal in the folder (`rows` are then those); a call without one takes all journals there
    together and answers what is missing, or with `merge` refuses to. `backend` answers instead of the engine;
    what they agreed on is kept with the results.

    Raises: DataError when an example does not end in an answer; PromptError; RunError on a full disk.
    """
    settings = generation or GenerationSettings()
    started = time.perf_counter()
    engine.weights.use(weights)
    fingerprint = engine.weights.fingerprint()
    prepared = time.perf_counter()
    journal, mine, resumed, agreement = _answer_rows(
        engine, examples, folder, settings, weights, seed, shard=shard, merge=merge, progress=progress, backend=backend
    )
    rows = [_prediction(engine, examples[place], journal.known[place], learned_ids, losses or {}) for place in mine]
    scoring = Scorer(tuple(metrics))
    per_row = [scoring.add(row.text, row.reference) for row in rows]
    scores = scoring.result()
    seconds = time.perf_counter() - prepared
    results = _results(rows, scores, seconds, prepared - started, settings, engine, weights, fingerprint)
    if resumed:
        results["predict_samples_per_second"] = round((len(rows) - resumed) / max(seconds, 1e-9), 3)
    results |= {"resumed": resumed, "batch_rows": BATCH_ROWS}
    if backend:
        results |= {"backend": backend.backend.name, "agreement": asdict(agreement) if agreement else None}
    results |= _by_dataset([examples[place].origin.dataset for place in mine], rows, per_row, metrics)
    if shard is None:
        write(folder, rows, per_row, results)
        journal.remove()
    return Predictions(rows, scores, folder, results)


def _answer_rows(
    engine: Engine,
    examples: Sequence[Demonstration],
    folder: Path,
    settings: GenerationSettings,
    weights: WeightSet,
    seed: int,
    *,
    shard: Shard | None,
    merge: bool,
    progress: Callable[[int, int | None], None] | None,
    backend: ChosenBackend | None,
) -> tuple[Journal, range, int, Agreement | None]:
    """Answer what no journal knows yet: (the journal, the places of the rows that are ours, how many were known, on
    what the backend agreed).
    """
    prompts = [engine.prompt(_before_answer(example), example.tools) for example in examples]
    decided_by = {
        "fingerprint": engine.fingerprint(weights),
        "dtype": str(engine.model.dtype),
        "generation": settings.model_dump(),
        "seed": seed,
        **({"backend": backend.backend.name} if backend else {}),
    }
    keys = [
        row_key(decided_by, place, example.origin.id, prompt.ids.tobytes())
        for place, (example, prompt) in enumerate(zip(examples, prompts, strict=True))
    ]
    journal = Journal(folder, keys, shard)
    mine = shard.rows(len(examples)) if shard else range(len(examples))
    missing = [place for place in mine if place not in journal.known]
    if merge and missing:
        raise RunError(
            f"{len(missing)} of {len(examples)} rows have no answer yet.",
            str(folder),
            f"The first is {examples[missing[0]].origin.id}: run the shard that holds it, or leave --merge out.",
        )
    finished = itertools.count(len(mine) - len(missing) + 1)

    def on_done(number: int, answer: Answer) -> None:
        journal.add(missing[number], answer)
        if progress:
            progress(next(finished), len(mine))

    wanted, agreement = [prompts[place] for place in missing], None
    if backend and wanted:
        request = BackendRequest(engine, wanted, settings, backend.model, weights, seed, backend.permissions)
        with backend.backend.open(request) as session:
            session.generate(wanted, settings, weights=weights, seed=seed, on_done=on_done, numbers=missing)
            agreement = session.agreement
    else:
        engine.generate(wanted, settings, weights=weights, seed=seed, on_done=on_done, numbers=missing)
    return journal, mine, len(mine) - len(missing), agreement


def write(
    folder: Path, rows: Sequence[Prediction], per_row: Sequence[Mapping[str, float]], results: Mapping[str, Any]
) -> None:
    """generated_predictions.jsonl and predict_results.json, each whole or not at all."""
    lines = [
        {
            "prompt": row.prompt,
            "predict": row.text,
            "label": row.reference,
            "id": row.id,
            "question": row.question,
            "reasoning": row.reasoning,
            "loss": row.loss,
            "scores": dict(scores),
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


def _before_answer(example: Demonstration) -> tuple[Any, ...]:
    if example.messages[-1].role != "assistant":
        raise DataError("The row does not end with an answer to compare with.", str(example.origin), "Add one.")
    return example.messages[:-1]


def _prediction(
    engine: Engine, example: Demonstration, answer: Answer, learned_ids: frozenset[str], losses: Mapping[str, float]
) -> Prediction:
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
        seen_in_training=example.origin.id in learned_ids,
        section=example.origin.section,
        loss=losses.get(example.origin.id),
    )


def _results(
    rows: Sequence[Prediction],
    scores: Mapping[str, Score],
    seconds: float,
    preparation: float,
    settings: GenerationSettings,
    engine: Engine,
    weights: WeightSet,
    fingerprint: str,
) -> dict[str, Any]:
    seen = sum(row.seen_in_training for row in rows)
    results: dict[str, Any] = {}
    if seen:
        results["warning"] = f"{seen} of {len(rows)} rows were learned from: their scores show memory, not skill."
    results |= {theirs: round(scores[ours].value, 4) for theirs, ours in LLAMA_FACTORY.items() if ours in scores}
    results |= {
        "predict_runtime": round(seconds, 4),
        "predict_samples_per_second": round(len(rows) / max(seconds, 1e-9), 3),
        "predict_steps_per_second": round(-(-len(rows) // BATCH_ROWS) / max(seconds, 1e-9), 3),
        "predict_model_preparation_time": round(preparation, 4),
        "explained": FIELD_DESCRIPTIONS,
        "rows": len(rows),
        "seen_in_training": seen,
        "stopped_at_limit": sum(row.stop_reason == "length" for row in rows),
        "generation": settings.model_dump(),
        "weights": weights,
        "fingerprint": fingerprint,
        "dtype": str(engine.model.dtype).removeprefix("torch."),
        "template": engine.template.name,
        "scores": {name: _score_json(score) for name, score in scores.items()},
    }
    return results


def _by_dataset(
    datasets: Sequence[str],
    rows: Sequence[Prediction],
    per_row: Sequence[Mapping[str, float]],
    metrics: Sequence[str],
) -> dict[str, Any]:
    """The scores of each dataset by itself, where there are several."""
    parts: dict[str, Scorer] = {}
    for dataset, row, scored in zip(datasets, rows, per_row, strict=True):
        scoring = parts.setdefault(dataset, Scorer(tuple(metrics)))
        scoring.add_scored(row.text, row.reference, scored)
    if len(parts) < 2:
        return {}
    found = {name: (scoring.pairs, scoring.result()) for name, scoring in parts.items()}
    return {
        "datasets": {
            name: {"rows": len(pairs), "scores": {metric: _score_json(score) for metric, score in scores.items()}}
            for name, (pairs, scores) in found.items()
        }
    }


def _score_json(score: Score) -> dict[str, Any]:
    value = asdict(score)
    value.pop("per_row")
    value["range"] = [None if abs(end) == float("inf") else end for end in score.range]
    return value
