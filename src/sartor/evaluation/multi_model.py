"""Several models over the same rows: each against the first, by one metric; values in, values out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sartor.base.i18n import Text, ntr, tr
from sartor.base.types import Score
from sartor.evaluation import statistics
from sartor.evaluation.numbers import interval, number
from sartor.evaluation.verdict import Difference, Findings, Verdict, compare_rows, make_verdict
from sartor.evaluation.verdict_text import OUTCOMES, STYLES, verdict_json

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

    def per_row(self, metric: str) -> tuple[float, ...]:
        return self.losses or () if metric == "loss" else self.scores[metric].per_row


@dataclass(frozen=True, slots=True)
class Comparison:
    """All candidates over the same rows; `verdicts` has each of the others against the first, in order."""

    candidates: tuple[Candidate, ...]
    verdicts: tuple[Verdict, ...]
    p_holm: tuple[float, ...]
    """p of each verdict, adjusted for how many there are (Holm 1979)."""
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
                    "scores": {name: _finite(score.value) for name, score in c.scores.items()},
                }
                for c in self.candidates
            ],
            "verdicts": [{**verdict_json(v), "p_holm": p} for v, p in zip(self.verdicts, self.p_holm, strict=True)],
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
        metric=comparison.metric,
        first=first.name,
    )
    table = Table(title=RichText(str(title), style="bold"), title_justify="left", box=None, pad_edge=False)
    table.add_column(str(tr("model")), overflow="fold")
    for column in (comparison.metric, tr("difference"), tr("95% interval"), "p (Holm)"):
        table.add_column(str(column), justify="right", overflow="fold")
    table.add_column(str(tr("verdict")), overflow="fold")
    table.add_row(first.name, number(comparison.verdicts[0].primary.base), "", "", "", "")
    for candidate, verdict, p in zip(comparison.candidates[1:], comparison.verdicts, comparison.p_holm, strict=True):
        d = verdict.primary
        outcome = RichText(str(OUTCOMES[verdict.outcome]), style=STYLES[verdict.outcome])
        table.add_row(
            candidate.name, number(d.tuned), number(d.difference, True), interval(d.low, d.high), f"{p:.3g}", outcome
        )
    return table


def make_comparison(
    candidates: Sequence[Candidate],
    row_ids: Sequence[str],
    *,
    metric: str = "loss",
    clusters: Sequence[str | None] | None = None,
    seed: int = 42,
    notes: Sequence[Text] = (),
) -> Comparison:
    """Each of the others against the first, by `metric` where all have it for each row, else by `TEXT_METRIC`.

    Raises: ValueError for fewer than two candidates; KeyError for a metric that was not scored.
    """
    if len(candidates) < 2:
        raise ValueError("a comparison needs at least two candidates")
    first, *others = candidates
    texts = tuple(notes)
    if metric == "loss" and (why := _why_losses_differ(candidates)):
        metric = TEXT_METRIC
        texts = (*texts, tr("Compared by {metric}: {reason}.", metric=TEXT_METRIC, reason=why))
    names = [metric, *(n for n, score in first.scores.items() if score.per_row and n != metric)]
    verdicts = []
    for other in others:
        primary, *rest = [_difference(first, other, name, clusters, seed) for name in names]
        findings = Findings(primary, tuple(rest), notes=texts, base_name=first.name, tuned_name=other.name)
        verdicts.append(make_verdict(findings))
    adjusted = statistics.holm([verdict.primary.p for verdict in verdicts])
    return Comparison(tuple(candidates), tuple(verdicts), tuple(adjusted), tuple(row_ids), texts)


def _why_losses_differ(candidates: Sequence[Candidate]) -> Text | None:
    without = [c.name for c in candidates if c.losses is None]
    if without:
        return ntr(
            "{names} reports no losses", "{names} report no losses", count=len(without), names=", ".join(without)
        )
    if len({c.label_tokens for c in candidates}) > 1:
        return tr("the models tokenize the answers differently, so their losses are not comparable")
    return None


def _difference(
    first: Candidate, other: Candidate, metric: str, clusters: Sequence[str | None] | None, seed: int
) -> Difference:
    higher = metric != "loss" and first.scores[metric].higher_is_better
    return compare_rows(
        first.per_row(metric),
        other.per_row(metric),
        metric=metric,
        higher_is_better=higher,
        clusters=clusters,
        seed=seed,
    )


def _mean_or_none(values: Sequence[float] | None) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
