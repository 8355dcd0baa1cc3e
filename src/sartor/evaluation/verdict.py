"""The verdict: base and tuned on the same rows, decided by one metric; values in, values out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from sartor.base.errors import RunError
from sartor.base.i18n import Text, ntr
from sartor.checks.leaks import Leak
from sartor.evaluation import statistics
from sartor.evaluation.statistics import MIN_CLUSTERS, Interval

Outcome = Literal["better", "worse", "not_proven"]
LEVEL = 0.95
NO_REMARK = Text("")


@dataclass(frozen=True, slots=True)
class Difference:
    """Tuned minus base in one metric over the same rows, with its 95% interval.

    `low`, `high` and `min_detectable_effect` are None with fewer than two rows. `min_detectable_effect` is the smallest
    true difference that this many rows detect with 80% power. The interval covers the choice of rows, not the training
    seed. `p_holm` is set for metrics that only describe.
    """

    metric: str
    higher_is_better: bool
    base: float
    tuned: float
    difference: float
    low: float | None
    high: float | None
    p: float
    n: int
    method: str
    min_detectable_effect: float | None = None
    se: float | None = None
    p_holm: float | None = None
    improved: int = 0
    worsened: int = 0
    clusters: int | None = None
    remark: Text = NO_REMARK

    @property
    def outcome(self) -> Outcome:
        """By this metric alone; `better` and `worse` only when the interval excludes zero."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "not_proven"
        return "better" if (self.difference > 0) == self.higher_is_better else "worse"

    @property
    def gain(self) -> float:
        """The difference with the sign chosen so that positive is better."""
        return self.difference if self.higher_is_better else -self.difference

    def interval(self) -> Interval:
        """The statistics behind it."""
        return Interval(
            self.difference,
            self.low,
            self.high,
            self.p,
            self.se,
            self.min_detectable_effect,
            self.method,
            self.clusters,
        )


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
        """Whether the training rows gained more than chance explains."""
        return self.low is not None and self.low > 0


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
    """The findings, and what they say by the primary metric alone: better, worse or not proven."""

    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Every value, numbers finite or null; `verdict_text.verdict_json` adds the sentence."""
        return {"outcome": self.outcome, **_plain(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` wrote. Raises: RunError when a field is missing."""
        try:
            memory, forgot, spread = value["memorization"], value["forgetting"], value["spread"]
            return cls(
                outcome=value["outcome"],
                primary=_difference(value["primary"]),
                others=tuple(map(_difference, value["others"])),
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


def compare_rows(
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    metric: str,
    higher_is_better: bool = True,
    full: float = 100.0,
    clusters: Sequence[str | None] | None = None,
    seed: int = 42,
) -> Difference:
    """Tuned minus base over paired rows; pairs with a NaN on either side are left out.

    McNemar's exact test where every value is 0 or `full` (wrong or right), else the bootstrap-t. With at least 10
    `clusters` (source sections), whole clusters are resampled; with fewer, rows are treated as independent, and
    `remark` says so.

    Raises: ValueError when the lengths differ.
    """
    if len(base) != len(tuned) or (clusters is not None and len(clusters) != len(base)):
        raise ValueError(f"{len(base)} base values, {len(tuned)} tuned values")
    kept = [i for i, (b, t) in enumerate(zip(base, tuned)) if not (math.isnan(b) or math.isnan(t))]
    b, t = [float(base[i]) for i in kept], [float(tuned[i]) for i in kept]
    sections, remark = _usable_clusters(clusters, kept)
    differences = [after - before for before, after in zip(b, t)]
    if sections is None and {*b, *t} <= {0.0, full}:
        found = statistics.mcnemar([x > 0 for x in b], [x > 0 for x in t], level=LEVEL).scaled(full)
    else:
        found = statistics.interval_of_mean(differences, sections, level=LEVEL, seed=seed)
    signed = differences if higher_is_better else [-d for d in differences]
    return Difference(
        metric=metric,
        higher_is_better=higher_is_better,
        base=_mean(b),
        tuned=_mean(t),
        difference=found.mean,
        low=found.low,
        high=found.high,
        p=found.p,
        n=len(kept),
        method=found.method,
        min_detectable_effect=found.min_detectable_effect,
        se=found.se,
        improved=sum(d > 0 for d in signed),
        worsened=sum(d < 0 for d in signed),
        clusters=found.clusters,
        remark=remark,
    )


def make_verdict(findings: Findings) -> Verdict:
    """The verdict by the primary metric; the others get their p adjusted (Holm) and decide nothing."""
    adjusted = statistics.holm([other.p for other in findings.others])
    others = tuple(replace(other, p_holm=p) for other, p in zip(findings.others, adjusted, strict=True))
    values = {field.name: getattr(findings, field.name) for field in fields(Findings)}
    return Verdict(**{**values, "others": others}, outcome=findings.primary.outcome)


def memorization(
    train: Difference,
    held_out: Difference,
    *,
    verbatim_train: float | None = None,
    verbatim_held_out: float | None = None,
) -> Memorization:
    """The gap between the gain on some training rows and on the held-out rows, both in the primary metric."""
    gap = statistics.welch(train.interval(), held_out.interval(), train.n, held_out.n, level=LEVEL)
    ends = (gap.low, gap.high)
    if not train.higher_is_better:
        ends = (None, None) if gap.low is None or gap.high is None else (-gap.high, -gap.low)
    return Memorization(train, train.gain - held_out.gain, ends[0], ends[1], gap.p, verbatim_train, verbatim_held_out)


def spread_of(differences: Sequence[float]) -> Spread:
    """Mean, deviation and range of the differences that training with different seeds gave."""
    mean = _mean(differences)
    sd = math.sqrt(sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)) if len(differences) > 1 else 0.0
    same = sum((d > 0) == (mean > 0) for d in differences)
    return Spread(tuple(differences), mean, sd, min(differences), max(differences), same)


def _usable_clusters(clusters: Sequence[str | None] | None, kept: Sequence[int]) -> tuple[list[str] | None, Text]:
    """A cluster for each kept row, or None where rows are independent or clusters too few; a remark on the latter."""
    if clusters is None or all(clusters[i] is None for i in kept):
        return None, NO_REMARK
    names = [clusters[i] or f"row {i}" for i in kept]
    count = len(set(names))
    if count == len(names):
        return None, NO_REMARK
    if count < MIN_CLUSTERS:
        return None, ntr(
            "{count} section is too few for an interval over sections ({needed} are needed); "
            "rows are treated as independent.",
            "{count} sections are too few for an interval over sections ({needed} are needed); "
            "rows are treated as independent.",
            count=count,
            needed=MIN_CLUSTERS,
        )
    return names, NO_REMARK


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _difference(value: Mapping[str, Any]) -> Difference:
    numbers = {name: math.nan if value[name] is None else value[name] for name in ("base", "tuned", "difference")}
    return Difference(**{**value, **numbers, "remark": Text.from_json(value["remark"])})


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
