"""Scores predictions against references: one Score per metric, row by row, in parallel, or from a file."""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sartor.base.errors import DataError
from sartor.base.types import Score
from sartor.evaluation import metrics
from sartor.evaluation.metrics import CorpusMetric, LossMetric, Metric, PairMetric

NOT_SCORED = math.nan
"""The value in `per_row` of a pair without a reference."""
FAILED = math.inf
"""The value in `per_row` of a pair for which the metric gave no finite number."""


def score(
    predictions: Sequence[str],
    references: Sequence[str | None],
    names: Iterable[str] = ("all",),
    *,
    workers: int = 1,
) -> dict[str, Score]:
    """Every named metric over the pairs; `per_row` follows the given order, NaN where a pair has no reference.

    Infinite where the metric itself gave no finite number; such pairs are in `failed` and not in the value.

    A pair whose reference is None is left out of every metric; one whose reference is blank, of the metrics that clean
    their texts (LLaMA-Factory scores it 0). An empty prediction scores 0. `workers` processes share the pairs; the
    result does not depend on their number.

    Raises: ConfigError for an unknown metric; ValueError when the two lists differ in length.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions, but {len(references)} references")
    scoring = Scorer(names)
    if workers > 1 and len(predictions) >= 2 * workers:
        scoring.add_in_parallel(list(predictions), list(references), workers)
    else:
        for prediction, reference in zip(predictions, references):
            scoring.add(prediction, reference)
    return scoring.result()


@dataclass(slots=True)
class Scorer:
    """Scores computed row by row: `add` returns the row's own, `result` those of all rows so far."""

    names: Iterable[str] = ("all",)
    found: tuple[Metric, ...] = field(init=False)
    pairs: list[tuple[str, str | None]] = field(init=False, default_factory=list)
    values: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.names = tuple(self.names)
        self.found = metrics.find(self.names)
        self.values = {metric.name: [] for metric in self.found if isinstance(metric, PairMetric)}

    def add(self, prediction: str, reference: str | None) -> dict[str, float]:
        """The scores of one pair, without the metrics that left it out."""
        row = _score_pair(self.found, prediction, reference)
        self._take(prediction, reference, row)
        return {name: value for name, value in row.items() if not math.isnan(value)}

    def add_scored(self, prediction: str, reference: str | None, row: Mapping[str, float]) -> bool:
        """Add a pair whose scores `add` returned before (from a journal).

        False, and nothing is added, when `row` lacks a metric.
        """
        if any(name not in row for name in self.values) and reference is not None and metrics.clean(reference):
            return False
        self._take(prediction, reference, {name: row.get(name, NOT_SCORED) for name in self.values})
        return True

    def add_in_parallel(self, predictions: list[str], references: list[str | None], workers: int) -> None:
        """Add many pairs, scored by several processes."""

        size = math.ceil(len(predictions) / (4 * workers))
        starts = range(0, len(predictions), size)
        parts = [(tuple(self.names), predictions[i : i + size], references[i : i + size]) for i in starts]
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows = [row for part in pool.map(_score_part, parts) for row in part]
        for prediction, reference, row in zip(predictions, references, rows):
            self._take(prediction, reference, row)

    def result(self) -> dict[str, Score]:
        """One Score per metric over all pairs added."""
        return {metric.name: self._score(metric) for metric in self.found if not isinstance(metric, LossMetric)}

    def _take(self, prediction: str, reference: str | None, row: Mapping[str, float]) -> None:
        self.pairs.append((prediction, reference))
        for name, values in self.values.items():
            values.append(row[name])

    def _score(self, metric: Metric) -> Score:
        if isinstance(metric, CorpusMetric):
            return _corpus_score(metric, self.pairs)
        per_row = tuple(self.values[metric.name])
        kept = [value for value in per_row if math.isfinite(value)]
        failed = tuple(number for number, value in enumerate(per_row, 1) if math.isinf(value))
        mean = float(np.mean(kept)) if kept else math.nan
        left_out = len(per_row) - len(kept) - len(failed)
        return replace(_score_of(metric, mean, len(kept), per_row=per_row, left_out=left_out), failed=failed)


def score_file(path: Path, names: Iterable[str] = ("all",), *, workers: int = 1) -> dict[str, Score]:
    """Score a JSONL file with `predict` and `label` in each line, as LLaMA-Factory writes it, or a JSON list of them.

    Raises: DataError naming file and line for a missing file, invalid JSON, or a line without the two fields.
    """
    rows = read_predictions(path)
    return score([row[0] for row in rows], [row[1] for row in rows], names, workers=workers)


def read_predictions(path: Path) -> list[tuple[str, str | None]]:
    """The (predict, label) pairs of such a file; `label` may be null. Raises: DataError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError("File not found.", str(path), "Give a JSONL file of predictions.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            "The file is not UTF-8 (byte {byte}).", str(path), "Save it as UTF-8.", byte=error.start
        ) from None
    if text.lstrip().startswith("["):
        rows = [(f"{path}, row {n}", row) for n, row in enumerate(_parsed(text, str(path)), 1)]
    else:
        lines = ((f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
        rows = [(where, _parsed(line, where)) for where, line in lines]
    return [_pair_of(row, where) for where, row in rows]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(
            "Not valid JSON: {reason}.", where, "Write one JSON object per line.", reason=str(error)
        ) from None


def _pair_of(row: object, where: str) -> tuple[str, str | None]:
    if not isinstance(row, dict) or not isinstance(row.get("predict"), str):
        raise DataError("`predict` is not a string.", where, 'Each line is {"predict": "…", "label": "…"}.')
    label = row.get("label")
    if label is not None and not isinstance(label, str):
        raise DataError("`label` is neither a string nor null.", where, 'Each line is {"predict": "…", "label": "…"}.')
    return row["predict"], label


def _score_pair(found: Iterable[Metric], prediction: str, reference: str | None) -> dict[str, float]:
    row: dict[str, float] = {}
    for metric in found:
        if isinstance(metric, PairMetric):
            pair = _prepared(metric, prediction, reference)
            value = NOT_SCORED if pair is None else float(metric.score(*pair))
            row[metric.name] = value if pair is None or math.isfinite(value) else FAILED
    return row


def _prepared(metric: PairMetric | CorpusMetric, prediction: str, reference: str | None) -> tuple[str, str] | None:
    """The texts as the metric wants them; None for a pair that it leaves out."""
    if reference is None:
        return None
    if not metric.clean_texts:
        return prediction, reference
    reference = metrics.clean(reference)
    return (metrics.clean(prediction), reference) if reference else None


def _corpus_score(metric: CorpusMetric, pairs: Sequence[tuple[str, str | None]]) -> Score:
    kept = [pair for p, r in pairs if (pair := _prepared(metric, p, r)) is not None]
    predictions, references = [p for p, _ in kept], [r for _, r in kept]
    value = float(metric.score(predictions, references)) if kept else math.nan
    signature = metric.signature_for(references)
    return _score_of(metric, value, len(kept), signature=signature, left_out=len(pairs) - len(kept))


def _score_of(
    metric: Metric,
    value: float,
    rows: int,
    *,
    per_row: tuple[float, ...] = (),
    signature: str = "",
    left_out: int = 0,
) -> Score:
    return Score(
        metric.name,
        value,
        metric.range,
        rows,
        signature or metric.signature,
        metric.higher_is_better,
        per_row,
        left_out,
    )


def score_json(score: Score) -> dict[str, Any]:
    """A score for a JSON file, without the rows' values; what is no finite number is null."""
    value = {**asdict(score), "value": score.value if math.isfinite(score.value) else None}
    value.pop("per_row")
    value["range"] = [end if math.isfinite(end) else None for end in score.range]
    return value


def _score_part(part: tuple[tuple[str, ...], list[str], list[str | None]]) -> list[dict[str, float]]:
    names, predictions, references = part
    found = metrics.find(names)
    return [_score_pair(found, prediction, reference) for prediction, reference in zip(predictions, references)]
