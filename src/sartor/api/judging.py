"""Judging a run: a language model compares the base and the tuned answers to the held-out rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sartor.base.api_keys import read_key
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, DataError
from sartor.base.open_file import read_regular
from sartor.base.openai_client import Address
from sartor.base.rundir import RunDir, read_json_lines
from sartor.base.settings import EvaluationSettings
from sartor.base.uploads import require_allowed, uploads_of
from sartor.evaluation.judge import AnswerPair, Winner, endpoint_judge, judge

if TYPE_CHECKING:
    from sartor.evaluation.judge import Ask, JudgeResult


def judge_run(
    run: RunDir, config: RunConfig, *, ask: Ask | None = None, progress: Callable[[int, int | None], None] | None = None
) -> JudgeResult:
    """Judge every held-out row in both orders.

    Raises: ConfigError if the judge's address, model or key is missing; DataError; EndpointError.
    """
    settings = config.evaluation
    if ask is None:
        check_judge(config)
        ask = _judge_of(settings)
    base, tuned = (_answers(run, which) for which in ("base", "tuned"))
    pairs = [
        AnswerPair(
            id, str(row["question"]), str(base[id]["predict"]), str(row["predict"]), row["label"], row.get("section")
        )
        for id, row in tuned.items()
        if id in base
    ]
    labels = read_labels(Path(settings.judge_labels)) if settings.judge_labels else None
    return judge(ask, pairs, labels=labels, progress=progress)


def check_judge(config: RunConfig) -> None:
    """Called before anything is computed, where the settings name a judge.

    Raises: ConfigError for a judge without a model, a host that no person has named, a key that is not set or not
    meant for that host; DataError for human labels that cannot be read.
    """
    settings = config.evaluation
    if settings.judge_endpoint:
        require_allowed(uploads_of((), settings.judge_endpoint), config.permissions)
        _judge_of(settings)
        if settings.judge_labels:
            read_labels(Path(settings.judge_labels))


def _judge_of(settings: EvaluationSettings) -> Ask:
    if not (settings.judge_endpoint and settings.judge_model):
        raise ConfigError("A judge needs an address and a model.", "judge_endpoint", "Set judge_model as well.")
    key_env = settings.judge_api_key[2:-1] if settings.judge_api_key else None  # ${NAME}: a literal key is refused
    key = read_key(settings.judge_endpoint, key_env)  # a file may have named the variable: only hosts it is bound to
    return endpoint_judge(Address(settings.judge_endpoint, settings.judge_model), key)


def read_labels(path: Path) -> dict[str, Winner]:
    """Human labels: JSONL lines with `id` and `label` (base, tuned or tie). Raises: DataError naming the line."""

    found: dict[str, Winner] = {}
    try:
        lines = read_regular(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("Could not read the labels: {error}.", path, "They must be UTF-8 JSONL.", error=error) from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
            if row is not None and row["label"] not in get_args(Winner):
                raise ValueError(f"label {row['label']!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                "Not a label: {error}.",
                f"{path}, line {number}",
                'Use lines like {{"id": "pride:3", "label": "tuned"}}; a label is base, tuned or tie.',
                error=error,
            ) from None
        if row is not None:
            found[str(row["id"])] = row["label"]
    return found


def _answers(run: RunDir, which: str) -> Mapping[str, Mapping[str, Any]]:
    path = run.predictions / f"{which}-held_out" / "generated_predictions.jsonl"
    return {str(row["id"]): row for row in read_json_lines(path)}
