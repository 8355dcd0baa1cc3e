"""Several models over the same rows: each against the first, by one metric; it is given values and runs no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sartor.base.types import Score
from sartor.evaluation import statistics
from sartor.evaluation.verdict import Difference, Verdict, compare_rows, make_verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

TEXT_METRIC = "rouge-l.char"
"""Decides where losses cannot: an endpoint tells none, and those of two tokenizers are not of the same tokens."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one model did: its scores over the rows, and its loss on each (nats per token; None: not to be had)."""

    name: str
    answered_by: str
    """A fingerprint of the weights, or the endpoint's address."""
    scores: Mapping[str, Score]
    losses: tuple[float, ...] | None = None
    label_tokens: tuple[int, ...] = ()
    """How many tokens each row's loss is a mean of."""

    def per_row(self, metric: str) -> tuple[float, ...]:
        return self.losses or () if metric == "loss" else self.scores[metric].per_row


@dataclass(frozen=True, slots=True)
class Comparison:
    """All contestants over the same rows; `verdicts` hold each of the others against the first, in order."""

    candidates: tuple[Candidate, ...]
    verdicts: tuple[Verdict, ...]
    p_holm: tuple[float, ...]
    """p of each verdict, adjusted for how many there are (Holm 1979)."""
    row_ids: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        return self.verdicts[0].primary.metric

    def to_json(self) -> dict[str, Any]:
        """What comparison.json holds; every number finite or null."""
        return {
            "metric": self.metric,
            "rows": list(self.row_ids),
            "notes": list(self.notes),
            "candidates": [
                {
                    "name": c.name,
                    "answered_by": c.answered_by,
                    "loss": _mean_or_none(c.losses),
                    "scores": {name: _finite(score.value) for name, score in c.scores.items()},
                }
                for c in self.candidates
            ],
            "verdicts": [{**v.to_json(), "p_holm": p} for v, p in zip(self.verdicts, self.p_holm, strict=True)],
        }

    def rich(self) -> RenderableType:
        """One line a model: its value, the difference with its interval, the outcome."""
        from rich.table import Table

        table = Table(
            title=f"{self.metric}, {len(self.row_ids)} rows; differences against {self.candidates[0].name}",
            title_justify="left",
            box=None,
            pad_edge=False,
            title_style="bold",
        )
        for column in ("model", self.metric, "difference", "95 % interval", "p (Holm)", "verdict"):
            table.add_column(column, justify="left" if column in ("model", "verdict") else "right", overflow="fold")
        first = self.verdicts[0].primary
        table.add_row(self.candidates[0].name, f"{first.base:.4g}", "", "", "", "")
        for contestant, verdict, p in zip(self.candidates[1:], self.verdicts, self.p_holm, strict=True):
            d = verdict.primary
            interval = "" if d.low is None or d.high is None else f"{d.low:+.4g} … {d.high:+.4g}"
            color = {"better": "green", "worse": "red"}.get(verdict.outcome, "yellow")
            words = verdict.outcome.replace("_", " ")
            table.add_row(
                contestant.name, f"{d.tuned:.4g}", f"{d.difference:+.4g}", interval, f"{p:.3g}", f"[{color}]{words}[/]"
            )
        return table


def make_comparison(
    candidates: Sequence[Candidate],
    row_ids: Sequence[str],
    *,
    metric: str = "loss",
    clusters: Sequence[str | None] | None = None,
    seed: int = 42,
    notes: Sequence[str] = (),
) -> Comparison:
    """Each of the others against the first, by `metric` where all have it for each row, else by `TEXT_METRIC`.

    Raises: ValueError for fewer than two contestants; KeyError for a metric that was not scored.
    """
    if len(candidates) < 2:
        raise ValueError("a comparison needs two")
    first, *others = candidates
    notes = list(notes)
    if metric == "loss" and (why := _losses_differ_in_kind(candidates)):
        metric, notes = TEXT_METRIC, [*notes, f"Compared by {TEXT_METRIC}: {why}."]
    names = [metric, *(n for n, score in first.scores.items() if score.per_row and n != metric)]
    verdicts = []
    for other in others:
        primary, *rest = [_difference(first, other, name, clusters, seed) for name in names]
        verdicts.append(make_verdict(primary, rest, base_name=first.name, tuned_name=other.name, notes=notes))
    adjusted = statistics.holm([verdict.primary.p for verdict in verdicts])
    return Comparison(tuple(candidates), tuple(verdicts), tuple(adjusted), tuple(row_ids), tuple(notes))


def _losses_differ_in_kind(candidates: Sequence[Candidate]) -> str:
    without = [c.name for c in candidates if c.losses is None]
    if without:
        return f"{', '.join(without)} tells no losses"
    if len({c.label_tokens for c in candidates}) > 1:
        return "the models cut the answers into different tokens, so their losses are not of the same thing"
    return ""


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
