"""A run's held-out answers before a judge: pairs what base and tuned predicted, asks the endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, DataError
from sartor.base.rundir import RunDir, read_json_lines

if TYPE_CHECKING:
    from sartor.evaluation.judge import Ask, JudgeResult, Winner


def judge_run(
    run: RunDir, config: RunConfig, *, ask: Ask | None = None, progress: Callable[[int, int | None], None] | None = None
) -> JudgeResult:
    """Both orders of every held-out row. Raises: ConfigError without a model's name, DataError, EndpointError."""
    from sartor.evaluation.judge import AnswerPair, Endpoint, judge

    settings = config.evaluation
    if ask is None:
        if not (settings.judge_endpoint and settings.judge_model):
            raise ConfigError("A judge needs an address and a model.", "judge_endpoint", "Set judge_model as well.")
        ask = Endpoint(settings.judge_endpoint, settings.judge_model, settings.judge_api_key)
    base, tuned = (_answers(run, which) for which in ("base", "tuned"))
    rivals = [
        AnswerPair(id, str(row["question"]), str(base[id]["predict"]), str(row["predict"]), row["label"])
        for id, row in tuned.items()
        if id in base
    ]
    labels = read_labels(Path(settings.judge_labels)) if settings.judge_labels else None
    return judge(ask, rivals, labels=labels, seed=config.train.seed, progress=progress)


def read_labels(path: Path) -> dict[str, Winner]:
    """People's labels: JSONL lines with `id` and `label` (base, tuned or tie). Raises: DataError naming the line."""
    from sartor.evaluation.judge import Winner

    found: dict[str, Winner] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The labels cannot be read: {error}.", str(path), "Write UTF-8 JSONL.") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
            if row is not None and row["label"] not in get_args(Winner):
                raise ValueError(f"label {row['label']!r}")
        except (ValueError, KeyError, TypeError) as error:
            fix = 'Write lines such as {"id": "pride:3", "label": "tuned"}: base, tuned or tie.'
            raise DataError(f"This line holds no label ({error}).", f"{path}, line {number}", fix) from None
        if row is not None:
            found[str(row["id"])] = row["label"]
    return found


def _answers(run: RunDir, which: str) -> Mapping[str, Mapping[str, Any]]:
    path = run.predictions / f"{which}-held_out" / "generated_predictions.jsonl"
    return {str(row["id"]): row for row in read_json_lines(path)}
