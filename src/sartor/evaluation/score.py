"""Score: predictions and references become one Score per metric, row by row, in parallel, or from a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sartor.base.errors import DataError
from sartor.base.types import Score
from sartor.evaluation import metrics
from sartor.evaluation.metrics import Metric

NOT_SCORED = math.nan
"""Stands in `per_row` where a pair has no reference."""


def score(
    predictions: Sequence[str],
    references: Sequence[str | None],
    names: Iterable[str] = ("all",),
    *,
    workers: int = 1,
) -> dict[str, Score]:
    """Every named metric over the pairs; `per_row` follows the order given, NaN where a pair has no reference.

    A reference of None leaves the pair out of every metric; a blank one, of the corrected metrics (LLaMA-Factory
    scores it 0). An empty prediction scores 0. `workers` processes share the pairs; the result does not depend on it.

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
    """Scores that grow row by row: `add` returns the row's own, `result` what they come to so far."""

    names: Iterable[str] = ("all",)
    found: tuple[Metric, ...] = field(init=False)
    pairs: list[tuple[str, str | None]] = field(init=False, default_factory=list)
    values: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.names = tuple(self.names)
        self.found = metrics.find(self.names)
        self.values = {metric.name: [] for metric in self.found if metric.pair}

    def add(self, prediction: str, reference: str | None) -> dict[str, float]:
        """The scores of one pair, without the metrics that have no reference to score against."""
        row = _score_pair(self.found, prediction, reference)
        self._take(prediction, reference, row)
        return {name: value for name, value in row.items() if not math.isnan(value)}

    def add_scored(self, prediction: str, reference: str | None, row: Mapping[str, float]) -> bool:
        """A pair whose scores `add` gave before (a journal); False, and nothing added, when a metric is missing."""
        if any(name not in row for name in self.values) and reference is not None and metrics.clean(reference):
            return False
        self._take(prediction, reference, {name: row.get(name, NOT_SCORED) for name in self.values})
        return True

    def add_in_parallel(self, predictions: list[str], references: list[str | None], workers: int) -> None:
        """The same over several processes."""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        size = math.ceil(len(predictions) / (4 * workers))
        starts = range(0, len(predictions), size)
        parts = [(tuple(self.names), predictions[i : i + size], references[i : i + size]) for i in starts]
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows = [row for part in pool.map(_score_part, parts) for row in part]
        for prediction, reference, row in zip(predictions, references, rows):
            self._take(prediction, reference, row)

    def result(self) -> dict[str, Score]:
        """One Score per metric over all pairs added."""
        return {metric.name: self._score(metric) for metric in self.found if metric.pair or metric.corpus}

    def _take(self, prediction: str, reference: str | None, row: Mapping[str, float]) -> None:
        self.pairs.append((prediction, reference))
        for name, values in self.values.items():
            values.append(row[name])

    def _score(self, metric: Metric) -> Score:
        if metric.pair:
            per_row = tuple(self.values[metric.name])
            kept = [value for value in per_row if not math.isnan(value)]
            mean, signature = float(np.mean(kept)) if kept else math.nan, metric.signature
            left_out = len(per_row) - len(kept)
        else:
            per_row = ()
            kept_pairs = [pair for p, r in self.pairs if (pair := _prepared(metric, p, r)) is not None]
            mean, signature = _over_corpus(metric, kept_pairs)
            kept, left_out = [0.0] * len(kept_pairs), len(self.pairs) - len(kept_pairs)
        return Score(metric.name, mean, metric.range, len(kept), signature, metric.higher_is_better, per_row, left_out)


def score_losses(nll_sums: Sequence[float], label_tokens: Sequence[int]) -> dict[str, Score]:
    """Loss and perplexity from each row's summed negative log-likelihood (nats) and its count of label tokens."""
    scores = {}
    for metric in metrics.find(["all"]):
        if metric.losses:
            value, per_row = metric.losses(nll_sums, label_tokens)
            scores[metric.name] = Score(
                metric.name, value, metric.range, len(nll_sums), metric.signature, metric.higher_is_better, per_row
            )
    return scores


def score_file(path: Path, names: Iterable[str] = ("all",), *, workers: int = 1) -> dict[str, Score]:
    """Score a JSONL file with `predict` and `label` in each line, as LLaMA-Factory writes it, or a JSON list of such.

    Raises: DataError naming file and line for a missing file, broken JSON, or a line without the two fields.
    """
    rows = read_predictions(path)
    return score([row[0] for row in rows], [row[1] for row in rows], names, workers=workers)


def read_predictions(path: Path) -> list[tuple[str, str | None]]:
    """The pairs of such a file; `label` may be null."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError("The file is not there.", str(path), "Name a file of predictions (JSONL).") from None
    except UnicodeDecodeError as error:
        raise DataError(f"The file is not UTF-8 (byte {error.start}).", str(path), "Save it as UTF-8.") from None
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
        raise DataError(f"This is no JSON: {error}.", where, "Write one JSON object a line.") from None


def _pair_of(row: object, where: str) -> tuple[str, str | None]:
    if not isinstance(row, dict) or not isinstance(row.get("predict"), str):
        raise DataError("There is no text under `predict`.", where, 'Each line is {"predict": "…", "label": "…"}.')
    label = row.get("label")
    if label is not None and not isinstance(label, str):
        raise DataError("`label` is no text.", where, 'Each line is {"predict": "…", "label": "…"}.')
    return row["predict"], label


def _score_pair(found: Iterable[Metric], prediction: str, reference: str | None) -> dict[str, float]:
    row: dict[str, float] = {}
    for metric in found:
        if metric.pair:
            pair = _prepared(metric, prediction, reference)
            row[metric.name] = NOT_SCORED if pair is None else float(metric.pair(*pair))
    return row


def _prepared(metric: Metric, prediction: str, reference: str | None) -> tuple[str, str] | None:
    if reference is None:
        return None
    if not metric.cleaned:
        return prediction, reference
    reference = metrics.clean(reference)
    return (metrics.clean(prediction), reference) if reference else None


def _over_corpus(metric: Metric, pairs: Sequence[tuple[str, str]]) -> tuple[float, str]:
    assert metric.corpus is not None
    references = [reference for _, reference in pairs]
    signature = metric.corpus_signature(references) if metric.corpus_signature else metric.signature
    value = float(metric.corpus([prediction for prediction, _ in pairs], references)) if pairs else math.nan
    return value, signature


def _score_part(part: tuple[tuple[str, ...], list[str], list[str | None]]) -> list[dict[str, float]]:
    names, predictions, references = part
    found = metrics.find(names)
    return [_score_pair(found, prediction, reference) for prediction, reference in zip(predictions, references)]
