"""`compare`: base and tuned over the held-out rows in one process, a probe on learned rows, the verdict, the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.api.judging import judge_run
from sartor.api.predicting import load_engine
from sartor.api.prepare_data import prepare_rows
from sartor.api.resolve_target import config_for
from sartor.api.training import Run
from sartor.base.config import RunConfig
from sartor.base.errors import DataError, RunError
from sartor.base.permissions import Permissions
from sartor.base.rundir import RunDir
from sartor.base.types import Demonstration, Encoded, Example, Ledger, TokenSequence

if TYPE_CHECKING:
    from sartor.evaluation.predict import Predictions
    from sartor.evaluation.verdict import Difference, Forgetting, Verdict
    from sartor.inference.engine import Engine
    from sartor.inference.weights import WeightSet

PROBE_ROWS = 20
"""Learned rows asked as well, to tell memory from skill."""
Progress = Callable[[int, int | None], None]


def compare(
    run: str | Path | Run,
    overrides: Iterable[str] = (),
    *,
    seeds: int = 1,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    on_ledger: Callable[[Ledger], None] | None = None,
    permissions: Permissions | None = None,
) -> Verdict:
    """Is the tuned model better on rows it never saw? Writes predictions, verdict.json; returns the verdict.

    `seeds` above 1 repeats the training with so many seeds in all, on the same split, and shows the spread.

    Raises: RunError for a run without held-out rows or not finished; DataError when its data changed.
    """
    from sartor.checks.leaks import find_leaks
    from sartor.evaluation.verdict import Findings, make_verdict, memorization
    from sartor.evaluation.verdict_text import verdict_json

    folder, overrides = RunDir(run.path if isinstance(run, Run) else Path(run)), tuple(overrides)
    config = config_for(folder.path, overrides)
    data = folder.read_json("data.json")
    if not data["split"]["held_out"]:
        raise RunError(
            "The run held no rows out, so nothing can be proved.",
            str(folder.path),
            "Train again with val_size=0.1 (or a count), or name eval_dataset.",
        )
    engine = load_engine(config, trust_remote_code=trust_remote_code)
    training = _training_view(folder, config)
    base = engine if engine.weights.has_both else load_engine(training, trust_remote_code=trust_remote_code)
    engines: dict[WeightSet, Engine] = {"base": base, "tuned": engine}
    rows = prepare_rows(training, engine.encoder, permissions)
    if on_ledger:
        on_ledger(rows.ledger)
    if [e.origin.id for e in rows.held_out] != data["split"]["held_out"]:
        raise DataError(
            "The data is not the one that the run was trained on.",
            str(folder.data),
            "Put the files back as they were; data.json holds their hashes.",
        )
    config = with_token_limit(config, rows.held_out_ids)
    probe = _probe(rows.train, config.train.seed)
    by_id = {e.origin.id: tokens for e, tokens in zip(rows.train, rows.train_ids, strict=False)}
    probe_ids = [by_id[e.origin.id] for e in probe]
    held_out = _measure(engines, folder, "held_out", rows.held_out, rows.held_out_ids, config, frozenset(), progress)
    learned = _measure(
        engines, folder, "train", probe, probe_ids, config, frozenset(e.origin.id for e in probe), progress
    )
    primary, *others = held_out.differences
    memory = memorization(
        learned.differences[0],
        primary,
        verbatim_train=learned.verbatim,
        verbatim_held_out=held_out.verbatim,
    )
    forgotten = _forgetting(engines, progress) if config.evaluation.forgetting_probe else None
    judged = judge_run(folder, config, progress=progress).to_json() if config.evaluation.judge_endpoint else None
    findings = Findings(
        primary,
        tuple(others),
        memorization=memory,
        forgetting=forgotten,
        leaks=tuple(find_leaks(rows.train, rows.held_out)),
        judge=judged,
        base_name=config.model.model_name_or_path,
        tuned_name=folder.name,
    )
    verdict = make_verdict(findings)
    folder.write_json("verdict.json", verdict_json(verdict))
    if seeds < 2:
        return verdict
    from sartor.api.seed_sweep import with_spread

    def judge(other: RunDir) -> Verdict:
        asked = (*overrides, "forgetting_probe=false")
        return compare(
            other.path, asked, trust_remote_code=trust_remote_code, progress=progress, permissions=permissions
        )

    return with_spread(folder, verdict, seeds, judge, permissions)


def report(run: str | Path | Run, out: str | Path | None = None) -> Path:
    """One self-contained HTML page about a run. Raises: RunError when its files are damaged."""
    from sartor.reporting.page import write_report

    folder = RunDir(run.path if isinstance(run, Run) else Path(run))
    if not folder.exists():
        raise RunError("This is no run.", str(folder.path), "Name the folder that `sartor train` wrote.")
    return write_report(folder, Path(out) if out else None)


class _Measured:
    """Base and tuned over the same rows: losses, answers, and their differences (the primary metric first)."""

    def __init__(self, differences: list[Difference], tuned: Predictions) -> None:
        self.differences = differences
        exact = [row.text.strip() == (row.reference or "").strip() for row in tuned.rows]
        self.verbatim = sum(exact) / len(exact) if exact else None


def _measure(
    engines: Mapping[WeightSet, Engine],
    run: RunDir,
    part: str,
    examples: Sequence[Example],
    encoded: Sequence[Any],
    config: RunConfig,
    learned: frozenset[str],
    progress: Progress | None,
) -> _Measured:
    from sartor.evaluation.predict import predict
    from sartor.evaluation.verdict import compare_rows

    rows = [example for example in examples if isinstance(example, Demonstration)]
    tokens = [row for row in encoded if isinstance(row, TokenSequence)]
    values: dict[str, dict[str, Sequence[float]]] = {}
    better: dict[str, bool] = {"loss": False}
    for which, engine in engines.items():  # base first
        losses = engine.losses(tokens, weights=which)
        done = predict(
            engine,
            rows,
            run.predictions / f"{which}-{part}",
            generation=config.generation,
            weights=which,
            learned_ids=learned,
            metrics=config.evaluation.metrics,
            losses={loss.id: loss.per_token for loss in losses},
            progress=progress,
        )
        values[which] = {"loss": [loss.per_token for loss in losses]}
        values[which] |= {name: score.per_row for name, score in done.scores.items() if score.per_row}
        better |= {name: score.higher_is_better for name, score in done.scores.items()}
    sections = [row.section for row in done.rows]
    clusters = sections if any(sections) else None
    primary = config.evaluation.primary_metric
    if primary not in values["tuned"]:
        raise RunError(
            f"There is no metric {primary!r} with a value for each row.",
            "primary_metric",
            f"There are: {', '.join(values['tuned'])}.",
        )
    names = [primary, *(name for name in values["tuned"] if name != primary)]
    differences = [
        compare_rows(
            values["base"][name],
            values["tuned"][name],
            metric=name,
            higher_is_better=better[name],
            clusters=clusters,
            seed=config.train.seed,
        )
        for name in names
    ]
    return _Measured(differences, done)


def _forgetting(engines: Mapping[WeightSet, Engine], progress: Progress | None) -> Forgetting:
    """Sixty general questions, before and after."""
    from sartor.evaluation.probes import ask, forgetting, questions

    probe = questions()
    replies = {which: ask(engine, probe, which, progress) for which, engine in engines.items()}
    return forgetting(replies["base"], replies["tuned"])


def with_token_limit(config: RunConfig, references: Sequence[Encoded]) -> RunConfig:
    """`max_new_tokens` where none was asked: twice the longest reference, so that a model that never stops ends."""
    if "max_new_tokens" in config.given:
        return config
    longest = max(row.label_tokens for row in references if isinstance(row, TokenSequence))
    return config.replace(max_new_tokens=min(config.generation.max_new_tokens, max(64, 2 * longest)))


def _training_view(run: RunDir, config: RunConfig) -> RunConfig:
    """The run's own data settings: what predict or compare overrides must not change the split."""
    from sartor.base.config import read_yaml

    asked = dict(RunConfig.from_dict(read_yaml(run.config), str(run.config)).given)
    return RunConfig.from_dict(
        {key: value for key, value in asked.items() if not key.startswith("do_")}, str(run.config)
    )


def _probe(learned: Sequence[Example], seed: int) -> list[Example]:
    """Some learned rows, drawn from the seed, in the order of the data."""
    distinct = list({example.origin.id: example for example in learned}.values())
    count = min(PROBE_ROWS, len(distinct))
    chosen = np.random.default_rng((seed, 1)).choice(len(distinct), size=count, replace=False)
    return [distinct[int(i)] for i in sorted(chosen)]
