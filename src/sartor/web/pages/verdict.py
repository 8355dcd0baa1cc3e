"""The base-vs-tuned view of the page `/evaluate`: the verdict, all metrics, and the answers side by side."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nicegui import ui

from sartor.evaluation import metrics
from sartor.evaluation.numbers import interval
from sartor.evaluation.numbers import number as figure
from sartor.reporting.charts import MARGINS_SHOWN
from sartor.web.components import button, card, line, link, pill, table, text
from sartor.web.i18n import Translator
from sartor.web.value_names import OUTCOMES, PARTS
from sartor.web.workspace import Workspace, visible

if TYPE_CHECKING:
    from sartor.evaluation.difference import Difference
    from sartor.evaluation.verdict import Verdict
    from sartor.reporting.page import ScoreRow

AT_ONCE = 15


@functools.cache
def metric_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The metrics that can be primary (they have a value for each row), and all metrics."""

    found = metrics.find(["all"])
    return ("loss", *(metric.name for metric in found if isinstance(metric, metrics.PairMetric))), tuple(
        metric.name for metric in found
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a comparison, read from the run's folder."""

    verdict: Verdict
    remarks: Sequence[str]
    scores: Sequence[ScoreRow]
    base: Sequence[Mapping[str, Any]]
    tuned: Sequence[Mapping[str, Any]]


def read(workspace: Workspace, run: str, lang: str) -> Outcome | None:
    """The verdict and the answers of a run; None before a comparison. Raises: RunError for damaged files."""
    from sartor.evaluation import verdict_text
    from sartor.reporting import page

    folder = workspace.run(run)
    if not folder.verdict.exists():
        return None
    files = page.read_run(folder)
    if files.verdict is None:
        return None
    rows = files.answers
    return Outcome(
        files.verdict,
        [remark.render(lang) for remark in verdict_text.remarks(files.verdict)],
        page.score_rows(files),
        rows.get("base-held_out", ()),
        rows.get("tuned-held_out", ()),
    )


class VerdictView:
    """Shows the result of a comparison."""

    def __init__(self, t: Translator, run: str, outcome: Outcome) -> None:
        self.t, self.run, self.outcome = t, run, outcome
        self.order, self.shown = "row", AT_ONCE

    def draw(self) -> None:
        self._verdict()
        self._scores()
        self._answers()

    def _verdict(self) -> None:
        from sartor.evaluation.verdict_text import answers_phrase, answers_sentence, effect_phrase, verdict_sentence

        t, outcome, verdict = self.t, self.outcome, self.outcome.verdict
        with card():
            with line("spread"):
                with line():
                    text(t("verdict"), tag="h2")
                    pill(t.lookup(OUTCOMES, verdict.outcome), verdict.outcome)
                with line():
                    address = f"/runs/{quote(self.run)}/file/report.html"
                    link(t("Open the report"), address).props("target=_blank")
                    download = link(t("Download"), address)
                    download.props["download"] = f"{self.run}-report.html"
            text(effect_phrase(verdict).render(t.lang), f"headline {verdict.outcome}", tag="p")
            if of_answers := answers_phrase(verdict):
                text(of_answers.render(t.lang), "headline answers", tag="p")
            for sentence in (verdict_sentence(verdict), answers_sentence(verdict.answers)):
                if sentence:
                    text(sentence.render(t.lang)).style("font-size:1.12rem;line-height:1.5;max-width:72ch")
            interval_bar(t, verdict.primary)
            for remark in outcome.remarks:
                text(remark, "soft small")

    def _scores(self) -> None:
        t, outcome = self.t, self.outcome
        head = [
            (t("metric"), "wide"),
            (t("Base"), "num"),
            (t("Tuned"), "num"),
            (t("difference"), "num"),
            (t("95% interval"), "num"),
            (t("range"), "num"),
        ]
        with card("flush"):
            table(head, [self._score(row) for row in outcome.scores if not row.folded])
            folded = [self._score(row) for row in outcome.scores if row.folded]
            if folded:
                with ui.expansion(t("More metrics")).classes("w-full"):
                    table(head, folded)

    def _score(self, row: ScoreRow) -> list[Any]:
        from sartor.evaluation.verdict_text import metric_name

        d = row.difference

        def name() -> None:
            text(
                metric_name(d.metric).render(self.t.lang)
                + (f" · {self.t('primary')}" if d.metric == self._primary(row) else ""),
                tag="b",
            )
            text(row.meaning.render(self.t.lang), "soft small")

        kind = {"better": "good", "worse": "bad"}.get(d.outcome, "")
        return [
            name,
            figure(d.base),
            figure(d.tuned),
            partial(text, figure(d.difference, True), kind, "span"),
            interval(d.low, d.high),
            f"{row.scale} {row.direction}",
        ]

    def _primary(self, row: ScoreRow) -> str:
        return row.difference.metric if row.difference is self.outcome.verdict.primary else ""

    def _answers(self) -> None:
        t, outcome = self.t, self.outcome
        pairs = list(zip(outcome.base, outcome.tuned, strict=False))
        if not pairs:
            return
        names = [name for name in metric_names()[0] if name == "loss" or name in (pairs[0][1].get("scores") or {})]
        with card():
            with line("spread"):
                text(t("Answers side by side"), tag="h2")
                options = {"row": t("dataset order")} | {
                    f"{name} {direction}": f"{name} {sign}"
                    for name in names
                    for direction, sign in (("up", "↑"), ("down", "↓"))
                }

                def sort(event: Any) -> None:
                    self.order, self.shown = event.value, AT_ONCE
                    fill()

                ui.select(options, value=self.order, label=t("Sort by"), on_change=sort).props("outlined dense")
            place = ui.element("div").classes("flex flex-col gap-4 w-full")

            def more() -> None:
                self.shown += AT_ONCE
                fill()

            def fill() -> None:
                place.clear()
                with place:
                    for base, tuned in ordered(pairs, self.order)[: self.shown]:
                        self._pair(base, tuned)
                    if self.shown < len(pairs):
                        button(t("and {count} more", count=len(pairs) - self.shown), more)

            fill()

    def _pair(self, base: Mapping[str, Any], tuned: Mapping[str, Any]) -> None:
        t, label = self.t, str(tuned.get("label") or "")
        with ui.element("article").classes("answer"):
            with line("spread"):
                text(tuned.get("question") or tuned.get("prompt") or "", tag="b")
                text(tuned.get("id", ""), "soft small", tag="span")
            text(f"{t('Reference')}: {label}", "soft")
            with ui.element("div").classes("pair"):
                for who, row in (("base", base), ("tuned", tuned)):
                    with ui.element("div"):
                        loss = row.get("loss")
                        figure = f" · {t('loss')} {loss:.3f}" if isinstance(loss, float) else ""
                        text(t(PARTS[who]) + figure + f" · {row.get('stop_reason', '')}", "who num")
                        show_answer(t, str(row.get("predict") or ""), label)


TICK_FRAC = 0.11
"""The width of a number under the axis, as a fraction of the axis on a wide screen."""


def interval_bar(t: Translator, difference: Difference) -> None:
    """The difference and its interval on an axis with zero and the margin; a tiny difference looks tiny."""

    low, high = difference.low, difference.high
    if low is None or high is None:
        return
    margin = difference.margin
    reach = max(abs(low) * 1.15, abs(high) * 1.15, MARGINS_SHOWN * margin, 1e-12)
    left, right = -reach, reach

    def at(value: float) -> str:
        return f"{100 * (value - left) / (right - left):.2f}%"

    with ui.element("div").classes(f"interval {difference.outcome}").props("role=img") as bar:
        bar.props["aria-label"] = f"{t('difference')} {figure(difference.difference, True)}"
        ui.element("div").classes("axis")
        ui.element("div").classes("margin").style(f"left:{at(-margin)};width:calc({at(margin)} - {at(-margin)})")
        ui.element("div").classes("zero").style(f"left:{at(0.0)}")
        ui.element("div").classes("span").style(f"left:{at(low)};width:calc({at(high)} - {at(low)})")
        ui.element("div").classes("dot").style(f"left:{at(difference.difference)}")
        for value, shift in ticks(low, high, reach):
            text(figure(value, value != 0), "tick").style(f"left:{at(value)};transform:translateX({shift}%)")


def ticks(low: float, high: float, reach: float) -> list[tuple[float, int]]:
    """The numbers under an axis from −reach to reach, and by how much of its width each is moved to the right.

    Those of a narrow interval stand beside it, and zero is left out where it would cover one of them.
    """
    width = TICK_FRAC * 2 * reach
    narrow = high - low < width
    found = [(low, -95 if narrow else -50), (high, -5 if narrow else -50)]
    if narrow:
        covers = low - 1.5 * width < 0.0 < high + 1.5 * width
    else:
        covers = min(abs(low), abs(high)) < width
    return found if covers else [*found, (0.0, -50)]


def ordered(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], order: str
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The pairs sorted by the tuned answers' score; rows without one come last."""
    name, _, direction = order.partition(" ")
    if not direction:
        return list(pairs)

    def value(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> float | None:
        row = pair[1]
        found = row.get("loss") if name == "loss" else (row.get("scores") or {}).get(name)
        return float(found) if isinstance(found, int | float) else None

    known = [(number, pair) for pair in pairs if (number := value(pair)) is not None]
    known.sort(key=lambda item: item[0], reverse=direction == "down")
    return [pair for _, pair in known] + [pair for pair in pairs if value(pair) is None]


def marked(answer: str, reference: str) -> str:
    """The answer as escaped HTML, with the words it shares with the reference highlighted."""
    from sartor.evaluation.text_diff import diff_words

    return "".join(
        f"<ins>{html.escape(visible(part.text))}</ins>"
        if part.shared and part.text.strip()
        else html.escape(visible(part.text))
        for part in diff_words(answer, reference)
    )


def show_answer(t: Translator, answer: str, reference: str) -> None:
    """An answer with the words it shares with the reference marked, or a note that it is empty."""
    if answer.strip():
        ui.html(marked(answer.strip(), reference), sanitize=False).classes("say assistant")
    else:
        text(t("The answer is empty."), "say assistant soft")
