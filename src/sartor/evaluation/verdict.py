"""The verdict: what a comparison found, decided by one metric; values in, values out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from sartor.base.errors import RunError
from sartor.base.i18n import Text
from sartor.checks.leaks import Leak
from sartor.evaluation import statistics
from sartor.evaluation.difference import LEVEL, Difference, Outcome


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """What can be counted of the answers without a metric, base and tuned: equal to the reference, cut, empty."""

    rows: int
    exact: tuple[int, int]
    cut: tuple[int, int]
    """Stopped at `limit`, the largest number of new tokens."""
    empty: tuple[int, int]
    limit: int

    @property
    def exact_frac(self) -> float | None:
        """The fraction of the tuned model's answers that equal the reference, 0–1."""
        return self.exact[1] / self.rows if self.rows else None


@dataclass(frozen=True, slots=True)
class Memorization:
    """The gain on training rows against the gain on held-out rows: a much larger one means memorization.

    `gap` is in the primary metric's unit, positive when training rows gained more. `verbatim_*` are shares (0–1) of
    answers equal to the reference.
    """

    train_rows: Difference
    gap: float
    low: float | None
    high: float | None
    p: float
    verbatim_train: float | None = None
    verbatim_held_out: float | None = None

    @property
    def found(self) -> bool:
        """Whether the training rows gained more than chance explains, by a difference worth having."""
        return self.low is not None and self.low > self.train_rows.margin


@dataclass(frozen=True, slots=True)
class Forgetting:
    """A general probe answered before and after training: the ids of questions lost, and of those gained."""

    difference: Difference
    lost: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """The difference over training runs with different seeds: how much of it depends on the seed."""

    differences: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float
    same_sign: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What a comparison measured; `make_verdict` draws the verdict from it."""

    primary: Difference
    """In the metric that decides."""
    others: tuple[Difference, ...] = ()
    """In the metrics that only describe."""
    answers: AnswerCounts | None = None
    memorization: Memorization | None = None
    forgetting: Forgetting | None = None
    leaks: tuple[Leak, ...] = ()
    spread: Spread | None = None
    judge: Mapping[str, Any] | None = None
    notes: tuple[Text, ...] = ()
    base_name: str = "base"
    tuned_name: str = "tuned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Findings):
    """The findings, and what they say by the primary metric alone: better, worse, the same or not proven."""

    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Every value, numbers finite or null; `verdict_text.verdict_json` adds the sentence."""
        return {"outcome": self.outcome, **_plain(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` wrote. Raises: RunError when a field is missing."""
        try:
            memory, forgot, spread = value["memorization"], value["forgetting"], value["spread"]
            answers = value["answers"]
            return cls(
                outcome=value["outcome"],
                primary=_difference(value["primary"]),
                others=tuple(map(_difference, value["others"])),
                answers=answers
                and AnswerCounts(
                    answers["rows"],
                    tuple(answers["exact"]),
                    tuple(answers["cut"]),
                    tuple(answers["empty"]),
                    answers["limit"],
                ),
                memorization=memory and Memorization(**{**memory, "train_rows": _difference(memory["train_rows"])}),
                forgetting=forgot
                and Forgetting(_difference(forgot["difference"]), tuple(forgot["lost"]), tuple(forgot["gained"])),
                leaks=tuple(Leak(**leak) for leak in value["leaks"]),
                spread=spread and Spread(**{**spread, "differences": tuple(spread["differences"])}),
                judge=value["judge"],
                notes=tuple(map(Text.from_json, value["notes"])),
                base_name=value["base_name"],
                tuned_name=value["tuned_name"],
            )
        except (KeyError, TypeError) as error:
            raise RunError(
                "Could not read the verdict: {error}.", "verdict.json", "Run `sartor compare` again.", error=error
            ) from None


def make_verdict(findings: Findings) -> Verdict:
    """The verdict by the primary metric; the others describe."""
    values = {field.name: getattr(findings, field.name) for field in fields(Findings)}
    return Verdict(**values, outcome=findings.primary.outcome)


def memorization(
    train: Difference,
    held_out: Difference,
    *,
    verbatim_train: float | None = None,
    verbatim_held_out: float | None = None,
) -> Memorization:
    """The gap between the gain on some training rows and on the held-out rows, both in the primary metric."""
    gap = statistics.welch(train.interval(), held_out.interval(), level=LEVEL)
    ends = (None, None) if gap.problem else (gap.low, gap.high)
    if not train.higher_is_better:
        ends = (None, None) if ends[0] is None or ends[1] is None else (-ends[1], -ends[0])
    return Memorization(train, train.gain - held_out.gain, ends[0], ends[1], gap.p, verbatim_train, verbatim_held_out)


def spread_of(differences: Sequence[float]) -> Spread:
    """Mean, deviation and range of the differences that training with different seeds gave."""
    mean = math.fsum(differences) / len(differences)
    sd = math.sqrt(sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)) if len(differences) > 1 else 0.0
    same = sum((d > 0) == (mean > 0) for d in differences)
    return Spread(tuple(differences), mean, sd, min(differences), max(differences), same)


def _difference(value: Mapping[str, Any]) -> Difference:
    numbers = {name: math.nan if value[name] is None else value[name] for name in ("base", "tuned", "difference")}
    refusal, failed = Text.from_json(value["refusal"]), tuple(value["failed"])
    return Difference(**{**value, **numbers, "refusal": refusal, "failed": failed})


def _plain(value: Any) -> Any:
    if isinstance(value, Text):
        return value.to_json() if value else ""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
