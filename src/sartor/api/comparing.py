"""`compare`: base against tuned on held-out rows and on a sample of training rows; the verdict and the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sartor.api.judging import check_judge, judge_run
from sartor.api.predicting import load_engine
from sartor.api.prepare_data import PreparedRows, Progress, prepare_rows
from sartor.api.resolve_target import config_for
from sartor.api.seed_sweep import with_spread
from sartor.api.training import Run
from sartor.base.config import RunConfig, read_yaml
from sartor.base.errors import DataError, RunError
from sartor.base.files import system_errors
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.rundir import RunDir
from sartor.base.types import Demonstration, Encoded, Example, Ledger, Prediction, Score, TokenSequence
from sartor.checks.leaks import find_leaks
from sartor.evaluation.difference import Measure, compare_rows
from sartor.evaluation.verdict import AnswerCounts, Findings, make_verdict, memorization
from sartor.evaluation.verdict_text import verdict_json

if TYPE_CHECKING:
    from sartor.evaluation.difference import Difference
    from sartor.evaluation.verdict import Forgetting, Verdict
    from sartor.inference.engine import Engine, RowLoss
    from sartor.inference.weights import WeightSet

PROBE_ROWS = 20
"""Training rows that are answered too, to tell memorization from skill."""


@system_errors()
def compare(
    run: str | Path | Run,
    overrides: Iterable[str] = (),
    *,
    seeds: int = 1,
    margin: float | None = None,
    progress: Progress | None = None,
    on_ledger: Callable[[Ledger], None] | None = None,
    permissions: Permissions = NOTHING_ALLOWED,
) -> Verdict:
    """Compare the tuned model with its base on the run's held-out rows. Writes predictions and verdict.json.

    `margin` is the smallest difference in the primary metric that is worth having (the setting of the same name): the
    verdict says better or worse only where the whole interval is beyond it. With `seeds` above 1 the training is
    repeated with that many seeds in all, on the same split, and the verdict shows the spread.

    Raises: RunError for a run that is not finished or has no held-out rows; DataError when its data changed.

    Example:
        >>> verdict = sartor.compare("runs/first", ["max_new_tokens=4", "forgetting_probe=false"])
        >>> verdict.primary.metric
        'loss'
    """

    folder, overrides = RunDir(run.path if isinstance(run, Run) else Path(run)), with_margin(overrides, margin)
    config = config_for(folder.path, overrides, permissions)
    check_judge(config)
    verdict = _verdict(folder, config, progress, on_ledger)
    folder.write_json("verdict.json", verdict_json(verdict))
    if seeds < 2:
        return verdict

    def judge(other: RunDir) -> Verdict:
        without_probe = (*overrides, "forgetting_probe=false")
        return compare(other.path, without_probe, progress=progress, permissions=permissions)

    return with_spread(folder, verdict, seeds, judge, permissions)


def with_margin(overrides: Iterable[str], margin: float | None) -> tuple[str, ...]:
    """The overrides, with `margin` as one of them where it is given."""
    return (*overrides, *(() if margin is None else (f"margin={margin!r}",)))


def _verdict(
    run: RunDir, config: RunConfig, progress: Progress | None, on_ledger: Callable[[Ledger], None] | None
) -> Verdict:
    """Base and tuned over the held-out rows and a sample of the training rows, and what follows from them."""

    held_out_ids = run.read_json("data.json")["split"]["held_out"]
    if not held_out_ids:
        raise RunError(
            "The run has no held-out rows to compare on.",
            run.path,
            "Train again with val_size=0.1 (or a count), or set eval_dataset.",
        )
    training = _training_view(run, config)
    engines = _engines(config, training)
    rows = prepare_rows(training, engines["tuned"].encoder)
    if on_ledger:
        on_ledger(rows.ledger)
    if [e.origin.id for e in rows.held_out] != held_out_ids:
        raise DataError(
            "The data differs from what the run was trained on.",
            run.data,
            "Restore the files; data.json has their hashes.",
        )
    config = with_token_limit(config, rows.held_out_ids)
    held_out = _measure(engines, run, _Part("held_out", rows.held_out, rows.held_out_ids), config, progress)
    trained = _measure(engines, run, _training_sample(rows, config.train.seed), config, progress)
    primary, *others = held_out.differences
    findings = Findings(
        primary,
        tuple(others),
        answers=held_out.answers,
        memorization=memorization(
            trained.differences[0],
            primary,
            verbatim_train=trained.answers.exact_frac,
            verbatim_held_out=held_out.answers.exact_frac,
        ),
        forgetting=_forgetting(engines, progress) if config.evaluation.forgetting_probe else None,
        leaks=tuple(find_leaks(rows.train, rows.held_out)),
        judge=judge_run(run, config, progress=progress).to_json() if config.evaluation.judge_endpoint else None,
        base_name=config.model.model_name_or_path,
        tuned_name=run.name,
    )
    return make_verdict(findings)


def _engines(config: RunConfig, training: RunConfig) -> Mapping[WeightSet, Engine]:
    """One engine for both where an adapter was trained, else also the model that training started from."""
    tuned = load_engine(config)
    base = tuned if tuned.weights.has_both else load_engine(training)
    return {"base": base, "tuned": tuned}


@system_errors()
def report(run: str | Path | Run, out: str | Path | None = None) -> Path:
    """Write a self-contained HTML page about a run. Raises: RunError when its files are damaged.

    Example:
        >>> sartor.report("runs/first").name
        'report.html'
    """
    from sartor.reporting.page import write_report

    folder = RunDir(run.path if isinstance(run, Run) else Path(run))
    if not folder.exists():
        raise RunError("Not a run folder.", folder.path, "Give the folder that `sartor train` wrote.")
    return write_report(folder, Path(out) if out else None)


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that both models answer, as examples and as tokens."""

    name: str
    examples: Sequence[Example]
    encoded: Sequence[Encoded]
    training_ids: frozenset[str] = frozenset()
    """Those of the rows that were trained on."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """Differences between base and tuned over the same rows, the primary metric first."""

    differences: list[Difference]
    answers: AnswerCounts


def _measure(
    engines: Mapping[WeightSet, Engine], run: RunDir, part: _Part, config: RunConfig, progress: Progress | None
) -> _Measured:
    from sartor.evaluation.predict import PredictOptions, predict

    rows = [example for example in part.examples if isinstance(example, Demonstration)]
    tokens = [row for row in part.encoded if isinstance(row, TokenSequence)]
    scores: dict[str, dict[str, Score]] = {}
    counts: list[tuple[int, int, int]] = []
    for which, engine in engines.items():  # base first
        losses = engine.losses(tokens, weights=which)
        options = PredictOptions(
            config.generation,
            which,
            metrics=config.evaluation.metrics,
            training_ids=part.training_ids,
            losses={loss.id: loss.per_token for loss in losses},
        )
        done = predict(engine, rows, run.predictions / f"{which}-{part.name}", options, progress=progress)
        scores[which] = {"loss": _loss_score(losses)}
        scores[which] |= {name: score for name, score in done.scores.items() if score.per_row}
        counts.append(_counts(done.rows))
    sections = [row.section for row in done.rows]
    differences = _differences(scores, [row.id for row in done.rows], sections if any(sections) else None, config)
    exact, cut, empty = zip(*counts, strict=True)
    return _Measured(differences, AnswerCounts(len(rows), exact, cut, empty, config.generation.max_new_tokens))


def _loss_score(losses: Sequence[RowLoss]) -> Score:
    per_row = tuple(loss.per_token if math.isfinite(loss.per_token) else math.inf for loss in losses)
    return Score("loss", float(np.mean(per_row or math.nan)), (0.0, math.inf), len(losses), "", False, per_row)


def _counts(rows: Sequence[Prediction]) -> tuple[int, int, int]:
    """Answers that equal the reference, that were cut, and that are empty."""
    exact = sum(row.text.strip() == (row.reference or "").strip() for row in rows)
    return exact, sum(row.stop_reason == "length" for row in rows), sum(not row.text.strip() for row in rows)


def _differences(
    scores: Mapping[str, Mapping[str, Score]],
    ids: Sequence[str],
    clusters: Sequence[str | None] | None,
    config: RunConfig,
) -> list[Difference]:
    """Tuned against base for each metric. Raises: RunError for a primary metric without a value for each row."""

    primary = config.evaluation.primary_metric
    if primary not in scores["tuned"]:
        raise RunError(
            "No metric {name!r} with a value for each row.",
            "primary_metric",
            "Available: {names}.",
            name=primary,
            names=", ".join(scores["tuned"]),
        )
    names = [primary, *(name for name in scores["tuned"] if name != primary)]
    found = []
    for name in names:
        tuned = scores["tuned"][name]
        margin, comparisons = (config.evaluation.margin, 1) if name == primary else (None, len(names) - 1)
        measure = Measure(name, tuned.higher_is_better, tuned.range, margin)
        base = scores["base"][name].per_row
        found.append(compare_rows(base, tuned.per_row, measure, clusters=clusters, ids=ids, comparisons=comparisons))
    return found


def _forgetting(engines: Mapping[WeightSet, Engine], progress: Progress | None) -> Forgetting:
    """Both models over sixty general questions."""
    from sartor.evaluation.probes import ask, forgetting, questions

    probe = questions()
    replies = {which: ask(engine, probe, which, progress) for which, engine in engines.items()}
    return forgetting(replies["base"], replies["tuned"])


def with_token_limit(config: RunConfig, references: Sequence[Encoded]) -> RunConfig:
    """Set `max_new_tokens`, unless given, to twice the longest reference, for models that never stop."""
    if "max_new_tokens" in config.given:
        return config
    longest = max(row.label_tokens for row in references if isinstance(row, TokenSequence))
    return config.replace(max_new_tokens=min(config.generation.max_new_tokens, max(64, 2 * longest)))


def _training_view(run: RunDir, config: RunConfig) -> RunConfig:
    """The run's own settings: overrides of a comparison must not change the split."""
    given = RunConfig.from_dict(read_yaml(run.config), str(run.config)).given
    kept = {key: value for key, value in given.items() if not key.startswith("do_")}
    return RunConfig.from_dict(kept, str(run.config), config.permissions)


def _training_sample(rows: PreparedRows, seed: int) -> _Part:
    """Some training rows, drawn by the seed, in the order of the data."""
    distinct = list({example.origin.id: example for example in rows.train}.values())
    count = min(PROBE_ROWS, len(distinct))
    chosen = np.random.default_rng((seed, 1)).choice(len(distinct), size=count, replace=False)
    examples = [distinct[int(i)] for i in sorted(chosen)]
    by_id = {e.origin.id: tokens for e, tokens in zip(rows.train, rows.train_ids, strict=False)}
    ids = [example.origin.id for example in examples]
    return _Part("train", examples, [by_id[id] for id in ids], frozenset(ids))
