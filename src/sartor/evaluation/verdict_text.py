"""A verdict as messages, and as a panel for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sartor.base.i18n import LANGUAGES, Text, ntr, tr
from sartor.evaluation.numbers import interval, number, p_value
from sartor.evaluation.verdict import LEVEL, Forgetting, Memorization, Outcome, Spread, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

OUTCOMES: Mapping[Outcome, Text] = {
    "better": tr("Better"),
    "worse": tr("Worse"),
    "not_proven": tr("Not proven"),
}
STYLES: Mapping[Outcome, str] = {"better": "green", "worse": "red", "not_proven": "yellow"}
"""The rich color of each outcome."""


def verdict_sentence(verdict: Verdict) -> Text:
    """Whether the tuned model is better, always with the interval."""
    d = verdict.primary
    params: dict[str, Any] = {
        "metric": tr("loss per reference token") if d.metric == "loss" else d.metric,
        "base": number(d.base),
        "tuned": number(d.tuned),
    }
    if d.low is None:
        return ntr(
            "Nothing can be proven with {count} held-out row: {metric} went from {base} to {tuned}. "
            "Hold out more rows.",
            "Nothing can be proven with {count} held-out rows: {metric} went from {base} to {tuned}. "
            "Hold out more rows.",
            count=d.n,
            **params,
        )
    params |= {
        "difference": number(d.difference, True),
        "low": number(d.low, True),
        "high": number(d.high, True),
        "p": p_value(d.p),
        "rows": d.n,
        "improved": d.improved,
        "detectable": number(d.min_detectable_effect),
    }
    if verdict.outcome == "better":
        return tr(
            "The tuned model is better on held-out rows: {metric} went from {base} to {tuned} "
            "({difference}; 95% interval {low} to {high}; {p}; {rows} rows, {improved} of them improved).",
            **params,
        )
    if verdict.outcome == "worse":
        return tr(
            "The tuned model is worse on held-out rows: {metric} went from {base} to {tuned} "
            "({difference}; 95% interval {low} to {high}; {p}; {rows} rows, {improved} of them improved).",
            **params,
        )
    return tr(
        "A difference is not proven: {metric} went from {base} to {tuned} "
        "({difference}; 95% interval {low} to {high}, which includes zero; {p}). "
        "With {rows} rows, a difference of {detectable} is detected four times out of five.",
        **params,
    )


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """What verdict.json holds: the values, and the sentence in each language (`sentence`, `sentence_zh`)."""
    sentence = verdict_sentence(verdict)
    translations = {f"sentence_{lang}": sentence.render(lang) for lang in LANGUAGES if lang != "en"}
    return {"level": LEVEL, "sentence": sentence.render("en"), **translations, **verdict.to_json()}


def verdict_panel(verdict: Verdict) -> RenderableType:
    """The sentence in a frame, then each difference with its interval, then the remarks."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text as RichText

    color = STYLES[verdict.outcome]
    title = RichText(str(OUTCOMES[verdict.outcome]), style=f"bold {color}")
    head = Panel(RichText(str(verdict_sentence(verdict))), title=title, border_style=color)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for column in (tr("base"), tr("tuned"), tr("difference"), tr("95% interval"), tr("p"), tr("rows")):
        table.add_column(str(column), justify="right")
    for d in (verdict.primary, *verdict.others):
        decides = f" ◂ {tr('decides')}" if d is verdict.primary else ""
        p = p_value(d.p if d.p_holm is None else d.p_holm).removeprefix("p ").removeprefix("= ")
        style = STYLES[d.outcome] if d.outcome != "not_proven" else ""
        difference = RichText(number(d.difference, True), style=style)
        table.add_row(
            RichText(d.metric + decides),
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
    if verdict.primary.remark:
        lines.append(verdict.primary.remark)
    return [*lines, *verdict.notes]


def _memorization(found: Memorization) -> Text:
    params = {
        "gap": number(found.gap, True),
        "metric": found.train_rows.metric,
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
