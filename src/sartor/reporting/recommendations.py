"""Recommendations: at most three things to try next, each based on a number of this run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sartor.base.i18n import Text, ntr, tr
from sartor.evaluation.numbers import number
from sartor.evaluation.verdict import Verdict
from sartor.evaluation.verdict_text import metric_name

MAX_RECOMMENDATIONS = 3
FEW_STEPS = 30
"""With fewer optimizer steps, a cosine schedule with warmup hardly leaves its start."""
STILL_FALLING_FRAC = 0.03
"""A loss that still falls by 3% or more at the end is worth more epochs."""
CUT_FRAC = 0.1
"""The fraction of answers that were cut from which this is worth fixing."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to try (`text`), and the number that suggests it (`figure`)."""

    code: str
    figure: str
    text: Text


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What recommendations are based on; sequences are empty where the run has no such file."""

    verdict: Verdict | None
    steps: Sequence[tuple[int, float]]
    """(step, training loss)."""
    evals: Sequence[tuple[int, float]]
    """(step, held-out loss)."""
    settings: Mapping[str, Any]
    ledger: Mapping[str, Any]


def recommend(run: RunFigures) -> list[Recommendation]:
    """The most useful first."""
    found: list[Recommendation] = []
    for rule in (
        _worse,
        _answers_cut,
        _past_best,
        _too_few_rows,
        _still_falling,
        _few_steps,
        _memorized,
        _forgot,
        _leaks,
        _skipped,
    ):
        found.extend(rule(run))
    return found[:MAX_RECOMMENDATIONS]


def _worse(run: RunFigures) -> Iterator[Recommendation]:
    if run.verdict and run.verdict.outcome == "worse":
        rate = float(run.settings.get("learning_rate", 5e-5))
        change = number(run.verdict.primary.difference, True)
        yield Recommendation(
            "worse",
            change,
            tr(
                "The base model is better ({metric} {change}). Lower the learning rate: learning_rate: {lower} instead "
                "of {rate}, and check with `sartor show` which tokens are trained on.",
                metric=metric_name(run.verdict.primary.metric),
                change=change,
                lower=f"{rate / 5:.0e}",
                rate=f"{rate:.0e}",
            ),
        )


def _answers_cut(run: RunFigures) -> Iterator[Recommendation]:
    counts = run.verdict.answers if run.verdict else None
    if counts is None or counts.cut[1] < CUT_FRAC * max(counts.rows, 1):
        return
    yield Recommendation(
        "cut",
        f"{counts.cut[1]}/{counts.rows}",
        ntr(
            "{cut} of {count} answer was cut at {limit} tokens. Compare again with max_new_tokens={doubled}; if "
            "answers are still cut, train longer: the model has not learned when to stop.",
            "{cut} of {count} answers were cut at {limit} tokens. Compare again with max_new_tokens={doubled}; if "
            "answers are still cut, train longer: the model has not learned when to stop.",
            count=counts.rows,
            cut=counts.cut[1],
            limit=counts.limit,
            doubled=2 * counts.limit,
        ),
    )


def _past_best(run: RunFigures) -> Iterator[Recommendation]:
    if len(run.evals) < 2:
        return
    best_step, best = min(run.evals, key=lambda pair: pair[1])
    last_step, last = run.evals[-1]
    if last > best * 1.01 and best_step < last_step:
        yield Recommendation(
            "past-best",
            f"{number(best)} → {number(last)}",
            tr(
                "The held-out loss was lowest at step {best_step} ({best}) and rose to {last} by step {last_step}. "
                "Set load_best_model_at_end: true, or train for {share} of the steps.",
                best_step=best_step,
                best=number(best),
                last=number(last),
                last_step=last_step,
                share=f"{best_step / last_step:.0%}",
            ),
        )


def _too_few_rows(run: RunFigures) -> Iterator[Recommendation]:
    d = run.verdict.primary if run.verdict else None
    if d is None or d.outcome != "not_proven" or not d.min_detectable_effect or abs(d.difference) <= d.margin:
        return
    needed = round(d.n * ((d.min_detectable_effect - d.margin) / (abs(d.difference) - d.margin)) ** 2)
    if d.n < needed <= 100_000:
        yield Recommendation(
            "rows",
            f"{d.n} → {needed}",
            tr(
                "{rows} held-out rows can show a difference of {detectable}; the observed one is {observed}. "
                "To prove that one, hold out about {needed} rows (val_size: {needed}).",
                rows=d.n,
                detectable=number(d.min_detectable_effect),
                observed=number(abs(d.difference)),
                needed=needed,
            ),
        )


def _still_falling(run: RunFigures) -> Iterator[Recommendation]:
    held_out = len(run.evals) >= 2
    points = run.evals if held_out else _thirds(run.steps)
    if len(points) < 2:
        return
    (before_step, before), (last_step, last) = points[-2], points[-1]
    if before > 0 and (before - last) / before >= STILL_FALLING_FRAC:
        fall = f"{(before - last) / before:.0%}"
        yield Recommendation(
            "falling",
            f"−{fall}",
            tr(
                "The {loss} was still falling: by {fall} ({before} → {last}) over steps {before_step}–{last_step}. "
                "Train longer: num_train_epochs: {epochs}.",
                loss=tr("held-out loss") if held_out else tr("training loss"),
                fall=fall,
                before=number(before),
                last=number(last),
                before_step=before_step,
                last_step=last_step,
                epochs=f"{2 * float(run.settings.get('num_train_epochs', 3.0)):g}",
            ),
        )


def _few_steps(run: RunFigures) -> Iterator[Recommendation]:
    if run.steps and run.steps[-1][0] < FEW_STEPS:
        steps = run.steps[-1][0]
        batch = int(run.settings.get("per_device_train_batch_size", 8)) * int(
            run.settings.get("gradient_accumulation_steps", 1)
        )
        yield Recommendation(
            "few-steps",
            str(steps),
            ntr(
                "Training took only {count} optimizer step of {batch} rows. A smaller batch gives more steps: "
                "per_device_train_batch_size: {smaller}, gradient_accumulation_steps: 1.",
                "Training took only {count} optimizer steps of {batch} rows. A smaller batch gives more steps: "
                "per_device_train_batch_size: {smaller}, gradient_accumulation_steps: 1.",
                count=steps,
                batch=batch,
                smaller=max(1, batch // 2),
            ),
        )


def _memorized(run: RunFigures) -> Iterator[Recommendation]:
    memory = run.verdict.memorization if run.verdict else None
    if memory and memory.found and run.verdict:
        gap = number(memory.gap, True)
        yield Recommendation(
            "memorized",
            gap,
            tr(
                "Training rows gained {gap} more than held-out rows ({held_out}). Adding data helps most; "
                "otherwise train for fewer epochs, or set lora_dropout: 0.1.",
                gap=gap,
                held_out=number(run.verdict.primary.gain, True),
            ),
        )


def _forgot(run: RunFigures) -> Iterator[Recommendation]:
    forgot = run.verdict.forgetting if run.verdict else None
    if forgot and forgot.difference.outcome == "worse":
        before, after = number(forgot.difference.base), number(forgot.difference.tuned)
        yield Recommendation(
            "forgot",
            f"{before}% → {after}%",
            tr(
                "Correct answers to general questions fell from {before}% to {after}%. Mix in general data "
                "(a second dataset), or lower the learning rate.",
                before=before,
                after=after,
            ),
        )


def _leaks(run: RunFigures) -> Iterator[Recommendation]:
    if run.verdict and run.verdict.leaks:
        count = len(run.verdict.leaks)
        yield Recommendation(
            "leaks",
            str(count),
            ntr(
                "{count} held-out row is nearly identical to a training row. Delete the duplicate, then compare again.",
                "{count} held-out rows are nearly identical to training rows. "
                "Delete the duplicates, then compare again.",
                count=count,
            ),
        )


def _skipped(run: RunFigures) -> Iterator[Recommendation]:
    skipped = len(run.ledger.get("skipped", ()))
    if skipped:
        yield Recommendation(
            "skipped",
            str(skipped),
            ntr(
                "{skipped} of {count} row was skipped; the table below has each reason and fix.",
                "{skipped} of {count} rows were skipped; the table below has each reason and fix.",
                count=int(run.ledger.get("read", 0)),
                skipped=skipped,
            ),
        )


def _thirds(steps: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The mean training loss of the second and of the last third, each at its last step."""
    third = len(steps) // 3
    if third < 3:
        return []
    parts = [steps[-2 * third : -third], steps[-third:]]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in parts]
