"""The verdict: base against tuned on the same rows, decided by one metric; it is given values and runs no model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sartor.base.errors import RunError
from sartor.checks.leaks import Leak
from sartor.evaluation import statistics
from sartor.evaluation.statistics import MIN_CLUSTERS, Interval

if TYPE_CHECKING:
    from rich.console import RenderableType

Outcome = Literal["better", "worse", "not_proven"]
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """Tuned minus base in one metric over the same rows, with its 95 % interval.

    `low`, `high` and `detectable` are None where the rows cannot tell (fewer than two). `detectable` is the smallest
    difference that so many rows would show in 80 of 100 samples. The interval covers the choice of rows, not the
    training's seed. `p_holm` is set for metrics that only describe.
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
    remark: str = ""

    @property
    def outcome(self) -> Outcome:
        """By this metric alone; `better` and `worse` only when the interval leaves out zero."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "not_proven"
        return "better" if (self.difference > 0) == self.higher_is_better else "worse"

    @property
    def gain(self) -> float:
        """The difference with its sign turned so that positive is better."""
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
    """The gain on rows that were learned against the gain on held-out rows: much more means learned by heart.

    `gap` is in the primary metric's unit, positive when learned rows gained more. `verbatim_*` are shares (0–1) of
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
        """Whether the learned rows gained more than chance explains."""
        return self.low is not None and self.low > 0


@dataclass(frozen=True, slots=True)
class Forgetting:
    """A general probe answered before and after: what was known and is lost, and the other way about."""

    difference: Difference
    lost: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """The same training with other seeds: how much of the difference is luck of the seed."""

    differences: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float
    same_sign: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Better, worse or not proven, by the primary metric alone; everything else describes."""

    outcome: Outcome
    primary: Difference
    others: tuple[Difference, ...] = ()
    memorization: Memorization | None = None
    forgetting: Forgetting | None = None
    leaks: tuple[Leak, ...] = ()
    spread: Spread | None = None
    judge: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    base_name: str = "base"
    tuned_name: str = "tuned"

    def to_json(self) -> dict[str, Any]:
        """What verdict.json holds; every number finite or null."""
        return {"level": LEVEL, "sentence": self.sentence("en"), "sentence_zh": self.sentence("zh"), **_plain(self)}

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
                notes=tuple(value["notes"]),
                base_name=value["base_name"],
                tuned_name=value["tuned_name"],
            )
        except (KeyError, TypeError) as error:
            raise RunError(
                f"The verdict cannot be read: {error}.", "verdict.json", "Run sartor compare again."
            ) from None

    def sentence(self, lang: str = "en") -> str:
        """The answer in one or two sentences of plain words, in English or Chinese."""
        from sartor.evaluation.verdict_text import verdict_sentence

        return verdict_sentence(self, lang)

    def rich(self) -> RenderableType:
        """The verdict for a terminal."""
        from sartor.evaluation.verdict_text import verdict_panel

        return verdict_panel(self)


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

    Values that are all 0 or `full` (wrong and right) go to McNemar's exact test, others to the bootstrap-t.
    `clusters` (source sections) are drawn whole where there are at least 10; else rows count as independent, and
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


def make_verdict(
    primary: Difference,
    others: Sequence[Difference] = (),
    *,
    memorization: Memorization | None = None,
    forgetting: Forgetting | None = None,
    leaks: Sequence[Leak] = (),
    spread: Spread | None = None,
    judge: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    base_name: str = "base",
    tuned_name: str = "tuned",
) -> Verdict:
    """The verdict by `primary`; the others get their p adjusted (Holm) and decide nothing."""
    adjusted = statistics.holm([other.p for other in others])
    described = tuple(replace(other, p_holm=p) for other, p in zip(others, adjusted))
    return Verdict(
        primary.outcome,
        primary,
        described,
        memorization,
        forgetting,
        tuple(leaks),
        spread,
        judge,
        tuple(notes),
        base_name,
        tuned_name,
    )


def memorization(
    train: Difference,
    held_out: Difference,
    *,
    verbatim_train: float | None = None,
    verbatim_held_out: float | None = None,
) -> Memorization:
    """The gap between the gain on a probe of learned rows and on the held-out rows, both in the primary metric."""
    gap = statistics.welch(train.interval(), held_out.interval(), train.n, held_out.n, level=LEVEL)
    ends = (gap.low, gap.high)
    if not train.higher_is_better:
        ends = (None, None) if gap.low is None or gap.high is None else (-gap.high, -gap.low)
    return Memorization(train, train.gain - held_out.gain, ends[0], ends[1], gap.p, verbatim_train, verbatim_held_out)


def spread_of(differences: Sequence[float]) -> Spread:
    """What repeated trainings with other seeds gave."""
    mean = _mean(differences)
    sd = math.sqrt(sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)) if len(differences) > 1 else 0.0
    same = sum((d > 0) == (mean > 0) for d in differences)
    return Spread(tuple(differences), mean, sd, min(differences), max(differences), same)


def _usable_clusters(clusters: Sequence[str | None] | None, kept: Sequence[int]) -> tuple[list[str] | None, str]:
    if clusters is None or all(clusters[i] is None for i in kept):
        return None, ""
    named = [clusters[i] or f"row {i}" for i in kept]
    found = len(set(named))
    if found == len(named):
        return None, ""
    if found < MIN_CLUSTERS:
        return (
            None,
            f"{found} sections are too few for an interval over sections (10 are needed); rows count as independent.",
        )
    return named, ""


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _difference(value: Mapping[str, Any]) -> Difference:
    numbers = {name: math.nan if value[name] is None else value[name] for name in ("base", "tuned", "difference")}
    return Difference(**{**value, **numbers})


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
