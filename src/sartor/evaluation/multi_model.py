"""Several models over the same rows: each against the first, by one metric; values in, values out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sartor.base.i18n import Text, ntr, tr
from sartor.base.types import Score
from sartor.evaluation.difference import LOSS, Difference, Measure, compare_rows
from sartor.evaluation.numbers import interval, number
from sartor.evaluation.verdict import Findings, Verdict, make_verdict
from sartor.evaluation.verdict_text import OUTCOMES, STYLES, metric_name, verdict_json

if TYPE_CHECKING:
    from rich.console import RenderableType

TEXT_METRIC = "rouge-l.char"
"""Decides where losses cannot: endpoints report none, and two tokenizers average over different tokens."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model's scores over the rows, and its loss on each (nats per token; None where it reports none)."""

    name: str
    answered_by: str
    """A fingerprint of the weights, or the endpoint's URL."""
    scores: Mapping[str, Score]
    losses: tuple[float, ...] | None = None
    label_tokens: tuple[int, ...] = ()
    """The number of tokens that each row's loss is averaged over."""
    cut: int = 0
    """Answers that stopped at max_new_tokens."""

    def per_row(self, metric: str) -> tuple[float, ...]:
        return self.losses or () if metric == "loss" else self.scores[metric].per_row


@dataclass(frozen=True, slots=True)
class Comparison:
    """All candidates over the same rows; `verdicts` has each of the others against the first, in order.

    Intervals, p values and outcomes are adjusted for how many verdicts there are.
    """

    candidates: tuple[Candidate, ...]
    verdicts: tuple[Verdict, ...]
    row_ids: tuple[str, ...]
    notes: tuple[Text, ...] = ()

    @property
    def metric(self) -> str:
        return self.verdicts[0].primary.metric

    def to_json(self) -> dict[str, Any]:
        """What comparison.json holds; every number finite or null."""
        return {
            "metric": self.metric,
            "rows": list(self.row_ids),
            "notes": [note.to_json() for note in self.notes],
            "candidates": [
                {
                    "name": c.name,
                    "answered_by": c.answered_by,
                    "loss": _mean_or_none(c.losses),
                    "cut": c.cut,
                    "scores": {name: _finite(score.value) for name, score in c.scores.items()},
                }
                for c in self.candidates
            ],
            "verdicts": [verdict_json(verdict) for verdict in self.verdicts],
        }


def comparison_table(comparison: Comparison) -> RenderableType:
    """For a terminal: one line per model with its value, the difference with its interval, and the outcome."""
    from rich.table import Table
    from rich.text import Text as RichText

    first = comparison.candidates[0]
    title = ntr(
        "{metric}, {count} row; differences from {first}",
        "{metric}, {count} rows; differences from {first}",
        count=len(comparison.row_ids),
        metric=metric_name(comparison.metric),
        first=first.name,
    )
    table = Table(title=RichText(str(title), style="bold"), title_justify="left", box=None, pad_edge=False)
    table.add_column(str(tr("model")), overflow="fold")
    for column in (metric_name(comparison.metric), tr("difference"), tr("95% interval"), tr("p")):
        table.add_column(str(column), justify="right", overflow="fold")
    table.add_column(str(tr("verdict")), overflow="fold")
    table.add_row(first.name, number(comparison.verdicts[0].primary.base), "", "", "", "")
    for candidate, verdict in zip(comparison.candidates[1:], comparison.verdicts, strict=True):
        d = verdict.primary
        outcome = RichText(str(OUTCOMES[verdict.outcome]), style=STYLES[verdict.outcome])
        table.add_row(
            candidate.name, number(d.tuned), number(d.difference, True), interval(d.low, d.high), f"{d.p:.3g}", outcome
        )
    return table


def make_comparison(
    candidates: Sequence[Candidate],
    row_ids: Sequence[str],
    *,
    metric: str = "loss",
    margin: float | None = None,
    clusters: Sequence[str | None] | None = None,
    notes: Sequence[Text] = (),
) -> Comparison:
    """Each of the others against the first, by `metric` where all have it for each row, else by `TEXT_METRIC`.

    `margin` is the smallest difference worth having in `metric`.

    Raises: ValueError for fewer than two candidates; KeyError for a metric that was not scored.
    """
    if len(candidates) < 2:
        raise ValueError("a comparison needs at least two candidates")
    first, *others = candidates
    texts = tuple(notes)
    if metric == "loss" and (why := _why_losses_differ(candidates)):
        metric, margin = TEXT_METRIC, None
        texts = (*texts, tr("Compared by {metric}: {reason}.", metric=metric_name(TEXT_METRIC), reason=why))
    names = [metric, *(n for n, score in first.scores.items() if score.per_row and n != metric)]
    rows = _Rows(tuple(row_ids), clusters)
    verdicts = []
    for other in others:
        primary = _difference(first, other, _measure(first, metric, margin), rows, len(others))
        described = len(others) * (len(names) - 1)
        rest = [_difference(first, other, _measure(first, name), rows, described) for name in names[1:]]
        findings = Findings(primary, tuple(rest), notes=texts, base_name=first.name, tuned_name=other.name)
        verdicts.append(make_verdict(findings))
    return Comparison(tuple(candidates), tuple(verdicts), tuple(row_ids), (*texts, *_findings(candidates, verdicts)))


def _findings(candidates: Sequence[Candidate], verdicts: Sequence[Verdict]) -> Iterator[Text]:
    """What must be seen beside the outcomes: refused claims, answers cut, the adjustment."""
    for verdict in verdicts:
        if verdict.primary.refusal:
            yield tr("{name}: {reason}", name=verdict.tuned_name, reason=verdict.primary.refusal)
    for candidate in candidates:
        if candidate.cut:
            yield ntr(
                "{name}: {count} answer was cut at max_new_tokens.",
                "{name}: {count} answers were cut at max_new_tokens.",
                count=candidate.cut,
                name=candidate.name,
            )
    if len(verdicts) > 1:
        yield tr("Intervals and p values are adjusted alike for {count} comparisons (Bonferroni).", count=len(verdicts))


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows that all candidates answered: ids, and the section of each."""

    ids: tuple[str, ...]
    sections: Sequence[str | None] | None


def _measure(first: Candidate, metric: str, margin: float | None = None) -> Measure:
    if metric == "loss":
        return replace(LOSS, margin=margin)
    score = first.scores[metric]
    return Measure(metric, score.higher_is_better, score.range, margin)


def _why_losses_differ(candidates: Sequence[Candidate]) -> Text | None:
    without = [c.name for c in candidates if c.losses is None]
    if without:
        return ntr(
            "{names} reports no losses", "{names} report no losses", count=len(without), names=", ".join(without)
        )
    if len({c.label_tokens for c in candidates}) > 1:
        return tr("the models tokenize the answers differently, so their losses are not comparable")
    return None


def _difference(first: Candidate, other: Candidate, measure: Measure, rows: _Rows, comparisons: int) -> Difference:
    return compare_rows(
        first.per_row(measure.metric),
        other.per_row(measure.metric),
        measure,
        clusters=rows.sections,
        ids=rows.ids,
        comparisons=comparisons,
    )


def _mean_or_none(values: Sequence[float] | None) -> float | None:
    return _finite(math.fsum(values) / len(values)) if values else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
