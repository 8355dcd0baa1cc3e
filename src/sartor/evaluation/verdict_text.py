"""A verdict as messages, and as a panel for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sartor.base.i18n import LANGUAGES, Text, ntr, tr
from sartor.evaluation.difference import LEVEL, Difference, Outcome
from sartor.evaluation.numbers import interval, number, p_value
from sartor.evaluation.verdict import AnswerCounts, Forgetting, Memorization, Spread, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

OUTCOMES: Mapping[Outcome, Text] = {
    "better": tr("Better"),
    "worse": tr("Worse"),
    "same": tr("No difference"),
    "not_proven": tr("Not proven"),
}
STYLES: Mapping[Outcome, str] = {"better": "green", "worse": "red", "same": "blue", "not_proven": "yellow"}
"""The rich color of each outcome."""
LARGE, HUGE = 3, 10
"""From this many margins on, a difference is no longer "slightly", and then "much"."""
EXACT = "exact-match"
CLOSENESS = ("token-f1", "rouge-l.word", "rouge-l.char")
"""Metrics of how close an answer is to its reference; the first that was measured is named in the headline."""


NAMES: Mapping[str, Text] = {
    "loss": tr("loss"),
    "perplexity": tr("perplexity"),
    "preference-margin": tr("margin of chosen over rejected"),
    "preference-accuracy": tr("pairs whose chosen answer is preferred, in percent"),
    "reward-margin": tr("reward of chosen over rejected"),
    "reward-accuracy": tr("pairs whose chosen answer has the higher reward, in percent"),
    "chosen-loss": tr("loss of the chosen answer"),
    "exact-match": tr("exact matches"),
    "token-f1": tr("shared words (F1)"),
    "judge": tr("the judge's preference"),
}
"""What metrics are called where their ids say little. ROUGE, BLEU and chrF are names already."""
UNITS: Mapping[str, Text] = {"char": tr("on characters"), "word": tr("on words")}


def metric_name(metric: str) -> Text:
    """What a metric is called in a sentence or a table; one that a package adds keeps its name."""
    if metric in NAMES:
        return NAMES[metric]
    name, _, unit = metric.rpartition(".")
    shown = name if unit in UNITS else metric
    if shown.startswith(("bleu", "rouge")):
        shown = shown.upper()
    if unit in UNITS:
        return tr("{metric} {unit}", metric=shown, unit=UNITS[unit])
    return Text("{metric}", {"metric": shown})


def headline(verdict: Verdict) -> Text:
    """The verdict in a few words: how large the difference is, and what is known of the answers themselves."""
    first, answers = effect_phrase(verdict), answers_phrase(verdict)
    return tr("{verdict}; {answers}", verdict=first, answers=answers) if answers else first


def effect_phrase(verdict: Verdict) -> Text:
    """The first half of the headline: how large the difference is in the metric that decides."""
    d, name = verdict.primary, metric_name(verdict.primary.metric)
    size = abs(d.difference) / d.margin if d.margin else HUGE
    place = 0 if size < LARGE else 1 if size < HUGE else 2
    if verdict.outcome == "better":
        return (
            tr("Slightly better in {metric}", metric=name),
            tr("Better in {metric}", metric=name),
            tr("Much better in {metric}", metric=name),
        )[place]
    if verdict.outcome == "worse":
        return (
            tr("Slightly worse in {metric}", metric=name),
            tr("Worse in {metric}", metric=name),
            tr("Much worse in {metric}", metric=name),
        )[place]
    if verdict.outcome == "same":
        return tr("No difference in {metric} that is worth having", metric=name)
    low, high = d.gains
    if not d.refusal and low > 0:
        return tr("Not proven: {metric} improved, but perhaps by less than is worth having", metric=name)
    if not d.refusal and high < 0:
        return tr("Not proven: {metric} got worse, but perhaps by less than matters", metric=name)
    return tr("Not proven")


def answers_phrase(verdict: Verdict) -> Text | None:
    """The other half: what judge and metrics show of the answers, where the primary metric does not."""
    measured = {d.metric: d for d in verdict.others}
    closeness = next((name for name in CLOSENESS if name in measured), None)
    if verdict.primary.metric in (EXACT, "judge") or (EXACT not in measured and closeness is None):
        return None
    if verdict.judge and verdict.judge.get("outcome") == "better":
        return tr("the judge prefers its answers")
    exact = measured[EXACT].outcome if EXACT in measured else "not_proven"
    close = measured[closeness].outcome if closeness else "not_proven"
    if exact == "better":
        return tr("more answers are exactly right")
    if "worse" in (exact, close):
        return tr("the answers moved away from the references")
    if close == "better":
        return tr("the answers are closer to the references, but not shown to be more correct")
    return tr("the answers are not shown to be more correct")


def answers_sentence(counts: AnswerCounts | None) -> Text | None:
    """How many answers equal the reference, were cut and are empty, before and after."""
    if counts is None or not counts.rows:
        return None
    return tr(
        "Of {rows} answers, {exact} equal the reference (base: {exact_base}), {cut} were cut at {limit} tokens "
        "(base: {cut_base}), {empty} are empty (base: {empty_base}).",
        rows=counts.rows,
        limit=counts.limit,
        **{name: getattr(counts, name)[1] for name in ("exact", "cut", "empty")},
        **{f"{name}_base": getattr(counts, name)[0] for name in ("exact", "cut", "empty")},
    )


def verdict_sentence(verdict: Verdict) -> Text:
    """Whether the tuned model is better, with the interval, the margin, and why nothing is claimed if so."""
    d = verdict.primary
    params: dict[str, Any] = {
        "metric": tr("loss per reference token") if d.metric == "loss" else metric_name(d.metric),
        "base": number(d.base),
        "tuned": number(d.tuned),
    }
    if d.low is None:
        unknown = tr("There is no interval: {metric} went from {base} to {tuned} on {rows} rows.", rows=d.n, **params)
        return tr("{claim} {reason}", claim=unknown, reason=d.refusal) if d.refusal else unknown
    params |= {
        "difference": number(d.difference, True),
        "low": number(d.low, True),
        "high": number(d.high, True),
        "p": p_value(d.p),
        "rows": d.n,
        "improved": d.improved,
        "detectable": number(d.min_detectable_effect),
        "margin": number(d.margin),
    }
    if d.refusal:
        claim = tr(
            "Nothing is claimed: {metric} went from {base} to {tuned} "
            "({difference}; 95% interval {low} to {high}; {p}; {rows} rows, {improved} of them improved).",
            **params,
        )
        return tr("{claim} {reason}", claim=claim, reason=d.refusal)
    return _claims(params)[verdict.outcome]


def _claims(params: Mapping[str, Any]) -> Mapping[Outcome, Text]:
    return {
        "better": tr(
            "The tuned model is better on held-out rows: {metric} went from {base} to {tuned} "
            "({difference}; 95% interval {low} to {high}, all of it beyond {margin}, the smallest difference worth "
            "having; {p}; {rows} rows, {improved} of them improved).",
            **params,
        ),
        "worse": tr(
            "The tuned model is worse on held-out rows: {metric} went from {base} to {tuned} "
            "({difference}; 95% interval {low} to {high}, all of it beyond {margin}, the smallest difference that "
            "matters; {p}; {rows} rows, {improved} of them improved).",
            **params,
        ),
        "same": tr(
            "Base and tuned model are about the same on held-out rows: {metric} went from {base} to {tuned} "
            "({difference}; 95% interval {low} to {high}, all of it within {margin}, the smallest difference worth "
            "having; {p}; {rows} rows, {improved} of them improved).",
            **params,
        ),
        "not_proven": tr(
            "A difference worth having is not proven: {metric} went from {base} to {tuned} "
            "({difference}; 95% interval {low} to {high}, not all of it beyond {margin}, the smallest difference worth "
            "having; {p}). With {rows} rows, a true difference of {detectable} is detected four times out of five.",
            **params,
        ),
    }


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """What verdict.json holds: the values, headline and sentence in each language (`sentence`, `sentence_zh`)."""
    texts = {"headline": headline(verdict), "sentence": verdict_sentence(verdict)}
    rendered = {
        name if lang == "en" else f"{name}_{lang}": text.render(lang)
        for name, text in texts.items()
        for lang in LANGUAGES
    }
    return {"level": LEVEL, **rendered, **verdict.to_json()}


def verdict_panel(verdict: Verdict) -> RenderableType:
    """The sentence in a frame, then each difference with its interval, then the remarks."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text as RichText

    color = STYLES[verdict.outcome]
    title = RichText(str(OUTCOMES[verdict.outcome]), style=f"bold {color}")
    sentences = [verdict_sentence(verdict), answers_sentence(verdict.answers)]
    body = RichText(f"{headline(verdict)}\n", style=f"bold {color}")  # a title would be cut in a narrow terminal
    body.append("\n".join(str(sentence) for sentence in sentences if sentence), style="not bold default")
    head = Panel(body, title=title, border_style=color)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for column in (tr("base"), tr("tuned"), tr("difference"), tr("95% interval"), tr("p"), tr("rows")):
        table.add_column(str(column), justify="right")
    for d in (verdict.primary, *verdict.others):
        decides = f" ◂ {tr('decides')}" if d is verdict.primary else ""
        p = p_value(d.p).removeprefix("p ").removeprefix("= ")
        style = STYLES[d.outcome] if d.outcome != "not_proven" else ""
        difference = RichText(number(d.difference, True), style=style)
        table.add_row(
            RichText(f"{metric_name(d.metric)}{decides}"),
            number(d.base),
            number(d.tuned),
            difference,
            interval(d.low, d.high),
            p,
            str(d.n),
        )
    return Group(head, table, *(RichText(str(line), style="dim") for line in remarks(verdict)))


def remarks(verdict: Verdict) -> list[Text]:
    """What the probes found and what the interval covers, one sentence or two each."""
    lines: list[Text] = []
    if verdict.memorization:
        lines.append(_memorization(verdict.memorization))
    if verdict.forgetting:
        lines.append(_forgetting(verdict.forgetting))
    if verdict.judge and "counts" in verdict.judge:
        lines.extend(_judge(verdict.judge))
    if verdict.leaks:
        lines.append(
            ntr(
                "{count} held-out row is nearly identical to a training row; its score shows memory.",
                "{count} held-out rows are nearly identical to training rows; their scores show memory.",
                count=len(verdict.leaks),
            )
        )
    if verdict.spread:
        lines.append(_spread(verdict.spread))
    lines.append(tr("The interval covers the choice of rows, not the seed of the training run."))
    if unseen := _unseen(verdict.primary):
        lines.append(unseen)
    for other in verdict.others:
        if other.failed:
            lines.append(tr("{metric}: {reason}", metric=metric_name(other.metric), reason=other.refusal))
    if len(verdict.others) > 1:
        lines.append(adjusted_note(verdict.others[0]))
    return [*lines, *verdict.notes]


def adjusted_note(difference: Difference) -> Text:
    """That intervals and p values allow for how many there are."""
    return tr(
        "Intervals and p values of metrics that only describe are adjusted alike for {count} comparisons (Bonferroni).",
        count=difference.comparisons,
    )


def _unseen(d: Difference) -> Text | None:
    """How rare a kind of row may be and yet be among the rows: three in n, at 95% (the rule of three)."""
    if d.units < 3:
        return None
    return tr("What happens in fewer than {share} of rows may be missing among these.", share=f"{3 / d.units:.0%}")


def _memorization(found: Memorization) -> Text:
    params = {
        "gap": number(found.gap, True),
        "metric": metric_name(found.train_rows.metric),
        "interval": interval(found.low, found.high),
    }
    if found.low is None:
        return tr("Training rows gained {gap} more than held-out rows in {metric}; no interval is available.", **params)
    if found.found:
        return tr(
            "Training rows gained {gap} more than held-out rows in {metric} (95% interval {interval}): "
            "more than chance explains, so they are partly memorized.",
            **params,
        )
    if found.low > 0:
        return tr(
            "Training rows gained {gap} more than held-out rows in {metric} (95% interval {interval}): "
            "perhaps by less than matters.",
            **params,
        )
    return tr(
        "Training rows gained {gap} more than held-out rows in {metric} (95% interval {interval}): "
        "no more than chance explains.",
        **params,
    )


def _forgetting(found: Forgetting) -> Text:
    d = found.difference
    return tr(
        "General questions: {before}% correct before training, {after}% after "
        "({lost} lost, {gained} gained of {total}; {p}).",
        before=number(d.base),
        after=number(d.tuned),
        lost=len(found.lost),
        gained=len(found.gained),
        total=d.n,
        p=p_value(d.p),
    )


def _judge(judge: Mapping[str, Any]) -> Iterator[Text]:
    counts = judge["counts"]
    yield tr(
        "Judge: {better} answers better, {worse} worse, {tie} tied, {failed} failed.",
        better=counts["tuned"],
        worse=counts["base"],
        tie=counts["tie"],
        failed=counts["failed"],
    )
    if judge.get("mean") is not None:
        yield tr(
            "The judge's mean (1 for a better answer, −1 for a worse one): {mean} (95% interval {interval}; {p}): "
            "{outcome}.",
            mean=number(judge["mean"], True),
            interval=interval(judge["low"], judge["high"]),
            p=p_value(judge["p"]),
            outcome=OUTCOMES[judge.get("outcome", "not_proven")],
        )
    if by_order := counts["swayed_by_order"]:
        yield ntr(
            "In {count} of the ties the judge chose by the order of the answers alone.",
            "In {count} of the ties the judge chose by the order of the answers alone.",
            count=by_order,
        )
    if judge.get("agreement") is not None:
        yield tr("The judge agrees with people on {agreement}.", agreement=f"{judge['agreement']:.0%}")


def _spread(spread: Spread) -> Text:
    return ntr(
        "{count} training run with different seeds: {low} … {high}, mean {mean}, standard deviation {sd}.",
        "{count} training runs with different seeds: {low} … {high}, mean {mean}, standard deviation {sd}.",
        count=len(spread.differences),
        low=number(spread.low, True),
        high=number(spread.high, True),
        mean=number(spread.mean, True),
        sd=number(spread.sd),
    )
