"""`compare`: base against tuned on held-out rows and on a sample of training rows; the verdict and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sartor.api.compare_rewards import reward_findings
from sartor.api.judging import check_judge, judge_run
from sartor.api.predicting import demonstration_of, load_engine
from sartor.api.prepare_data import PreparedRows, Progress
from sartor.api.resolve_target import config_for, existing_run, settings_of
from sartor.api.run_rows import no_held_out_rows, refuse_other_rows, rows_of
from sartor.api.seed_sweep import with_spread
from sartor.api.training import Run
from sartor.base.config import RunConfig
from sartor.base.errors import RunError
from sartor.base.files import system_errors
from sartor.base.forecast import AnswersPart, BatchForecast
from sartor.base.i18n import Text, tr
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.rundir import RunDir
from sartor.base.types import (
    Demonstration,
    Encoded,
    Example,
    Ledger,
    Prediction,
    Score,
    TokenSequence,
    token_sequences,
)
from sartor.checks.leaks import find_leaks
from sartor.evaluation.difference import Measure, compare_rows
from sartor.evaluation.numbers import number
from sartor.evaluation.preferences import is_per_token, likelihood_scores, margin_worth_having, perplexity
from sartor.evaluation.verdict import AnswerCounts, Findings, make_verdict, memorization
from sartor.evaluation.verdict_text import verdict_json
from sartor.training.stages import STAGES

if TYPE_CHECKING:
    from sartor.evaluation.difference import Difference
    from sartor.evaluation.verdict import Forgetting, Verdict
    from sartor.inference.engine import Engine
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

    folder, overrides = existing_run(run.path if isinstance(run, Run) else run), with_margin(overrides, margin)
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
    refuse_other_rows(run, config, "data", "prompt")
    if not run.read_json("data.json")["split"]["held_out"]:
        raise no_held_out_rows(run, "sartor", "compare", "base", str(run.path))
    rows = rows_of(run, config)
    if on_ledger:
        on_ledger(rows.ledger)
    parts = (_Part("held_out", rows.held_out, rows.held_out_ids), _training_sample(rows, config.train.seed))
    if STAGES.get(config.method.stage).head == "reward":
        findings = reward_findings(run, config, *(part.encoded for part in parts))
    else:
        findings = _findings(run, config, parts, progress)
    return make_verdict(replace(findings, leaks=tuple(find_leaks(rows.train, rows.held_out)), tuned_name=run.name))


def _findings(run: RunDir, config: RunConfig, parts: tuple[_Part, _Part], progress: Progress | None) -> Findings:
    """What both models make of the held-out rows and of some training rows."""
    engines = _engines(run, config)
    config = with_token_limit(config, parts[0].encoded)
    forecast = _forecast(parts, config)
    held_out, trained = (_measure(engines, run, part, config, progress, forecast) for part in parts)
    primary, *others = held_out.differences
    return Findings(
        primary,
        tuple(others),
        answers=held_out.answers,
        memorization=memorization(
            trained.differences[0],
            primary,
            verbatim_train=trained.answers.exact_frac,
            verbatim_held_out=held_out.answers.exact_frac,
        ),
        forgetting=_forgetting(engines, progress, forecast) if config.evaluation.forgetting_probe else None,
        judge=judge_run(run, config, progress=progress).to_json() if config.evaluation.judge_endpoint else None,
        notes=held_out.notes,
        base_name=settings_of(run).model.model_name_or_path,
    )


def _engines(run: RunDir, config: RunConfig) -> Mapping[WeightSet, Engine]:
    """One engine for both where an adapter was trained, else also the model that training started from."""
    tuned = load_engine(config)
    base = tuned if tuned.weights.has_both else load_engine(settings_of(run, config.permissions))
    return {"base": base, "tuned": tuned}


@system_errors()
def report(run: str | Path | Run, out: str | Path | None = None) -> Path:
    """Write a self-contained HTML page about a run. Raises: RunError when its files are damaged.

    Example:
        >>> sartor.report("runs/first").name
        'report.html'
    """
    from sartor.reporting.page import write_report

    folder = existing_run(run.path if isinstance(run, Run) else run)
    return write_report(folder, Path(out) if out else None)


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that both models answer, as examples and as tokens."""

    name: str
    examples: Sequence[Example]
    encoded: Sequence[Encoded]
    training_ids: frozenset[str] = frozenset()
    """Those of the rows that were trained on."""

    @property
    def rows(self) -> list[Demonstration]:
        """The rows that have an answer to compare with."""
        return [row for example in self.examples if (row := demonstration_of(example))]


@dataclass(frozen=True, slots=True)
class _Measured:
    """Differences between base and tuned over the same rows, the primary metric first."""

    differences: list[Difference]
    answers: AnswerCounts
    notes: tuple[Text, ...] = ()


def _forecast(parts: Sequence[_Part], config: RunConfig) -> BatchForecast:
    """Of the time for all answers, in the order in which they are generated: base and tuned for each part."""
    from sartor.evaluation.probes import ANSWER_TOKENS, questions
    from sartor.inference.engine import BATCH_ROWS

    limit = config.generation.max_new_tokens
    answers = [AnswersPart(len(part.rows), limit) for part in parts for _ in ("base", "tuned")]
    if config.evaluation.forgetting_probe:
        answers += 2 * [AnswersPart(len(questions()), ANSWER_TOKENS)]
    return BatchForecast(answers, BATCH_ROWS)


def _measure(
    engines: Mapping[WeightSet, Engine],
    run: RunDir,
    part: _Part,
    config: RunConfig,
    progress: Progress | None,
    forecast: BatchForecast,
) -> _Measured:
    from sartor.evaluation.predict import PredictOptions, predict

    rows = part.rows
    scores: dict[str, dict[str, Score]] = {}
    counts: list[tuple[int, int, int]] = []
    perplexities: list[float] = []
    for which, engine in engines.items():  # base first
        scores[which], losses = likelihood_scores(engine, part.encoded, which, per_token=is_per_token(config.method))
        perplexities.append(perplexity(losses))
        options = PredictOptions(
            config.generation,
            which,
            metrics=config.evaluation.metrics,
            training_ids=part.training_ids,
            losses={loss.id: loss.per_token for loss in losses},
            forecast=forecast,
        )
        done = predict(engine, rows, run.predictions / f"{which}-{part.name}", options, progress=progress)
        scores[which] |= {name: score for name, score in done.scores.items() if score.per_row}
        counts.append(_counts(done.rows))
    sections = {len(rows): [row.section for row in done.rows]}
    ids = {len(rows): [row.id for row in done.rows], len(losses): [loss.id for loss in losses]}
    notes: tuple[Text, ...] = ()
    if not rows:  # documents, perhaps in several pieces, which are not independent
        sections = {len(losses): [loss.id for loss in losses]}
        before, after = map(number, perplexities)
        notes = (
            tr("Perplexity on held-out text: {before} before training, {after} after.", before=before, after=after),
        )
    exact, cut, empty = zip(*counts, strict=True)
    answers = AnswerCounts(len(rows), exact, cut, empty, config.generation.max_new_tokens)
    return _Measured(_differences(scores, ids, sections, config), answers, notes)


def _counts(rows: Sequence[Prediction]) -> tuple[int, int, int]:
    """Answers that equal the reference, that were cut, and that are empty."""
    exact = sum(row.text.strip() == (row.reference or "").strip() for row in rows)
    return exact, sum(row.stop_reason == "length" for row in rows), sum(not row.text.strip() for row in rows)


def _differences(
    scores: Mapping[str, Mapping[str, Score]],
    ids: Mapping[int, Sequence[str]],
    sections: Mapping[int, Sequence[str | None]],
    config: RunConfig,
) -> list[Difference]:
    """Tuned against base for each metric, the deciding one first: `primary_metric` if it was given, else the first.

    `ids` and `sections` of the rows, by how many there are: not every row has an answer to be scored. Raises: RunError
    for a primary metric without a value for each row.
    """
    primary = config.evaluation.primary_metric if "primary_metric" in config.given else next(iter(scores["tuned"]))
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
        base, tuned = scores["base"][name].per_row, scores["tuned"][name]
        margin, comparisons = (config.evaluation.margin, 1) if name == primary else (None, len(names) - 1)
        worth = margin_worth_having(name, config.method) if margin is None else margin
        measure = Measure(name, tuned.higher_is_better, tuned.range, worth)
        clusters = sections.get(len(base))
        used = clusters if clusters and any(clusters) else None
        found.append(
            compare_rows(base, tuned.per_row, measure, clusters=used, ids=ids.get(len(base)), comparisons=comparisons)
        )
    return found


def _forgetting(engines: Mapping[WeightSet, Engine], progress: Progress | None, forecast: BatchForecast) -> Forgetting:
    """Both models over sixty general questions."""
    from sartor.evaluation.probes import ask, forgetting, questions

    probe = questions()
    replies = {which: ask(engine, probe, which, progress, forecast) for which, engine in engines.items()}
    return forgetting(replies["base"], replies["tuned"])


def with_token_limit(config: RunConfig, references: Sequence[Encoded]) -> RunConfig:
    """Set `max_new_tokens`, unless given, to twice the longest reference, for models that never stop."""
    if "max_new_tokens" in config.given:
        return config
    longest = max((part.label_tokens for row in references for part in token_sequences(row)), default=0)
    return config.replace(max_new_tokens=min(config.generation.max_new_tokens, max(64, 2 * longest)))


def _training_sample(rows: PreparedRows, seed: int) -> _Part:
    """Some training rows, drawn by the seed, in the order of the data."""
    distinct = list({example.origin.id: example for example in rows.train}.values())
    count = min(PROBE_ROWS, len(distinct))
    chosen = np.random.default_rng((seed, 1)).choice(len(distinct), size=count, replace=False)
    examples = [distinct[int(i)] for i in sorted(chosen)]
    chosen_ids = {example.origin.id for example in examples}
    found: dict[tuple[str, int], Encoded] = {}
    for tokens in rows.train_ids:  # a row may be several sequences; a repeated row is one
        if tokens.origin and tokens.origin.id in chosen_ids:
            found.setdefault((tokens.origin.id, tokens.part if isinstance(tokens, TokenSequence) else 0), tokens)
    order = {example.origin.id: place for place, example in enumerate(examples)}
    encoded = [tokens for (id, _), tokens in sorted(found.items(), key=lambda item: order[item[0][0]])]
    return _Part("train", examples, encoded, frozenset(chosen_ids))
