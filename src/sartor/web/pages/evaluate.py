"""The page `/evaluate`: base against tuned on held-out rows: progress, verdict, scores, answers side by side."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from sartor import api
from sartor.base.errors import RunError, SartorError
from sartor.web.desk import Desk, plain
from sartor.web.frame import aside, button, card, empty, framed, heading, line, link, pill, table, text, trouble
from sartor.web.jobs import Job, Jobs
from sartor.web.pages import several
from sartor.web.words import Words

if TYPE_CHECKING:
    from sartor.use.report import ScoreRow
    from sartor.use.verdict import Difference, Verdict

EVERY_S = 0.7
AT_ONCE = 15


@functools.cache
def metric_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The metrics that can decide (they have a value for each row), and all that can be computed."""
    from sartor.use import metrics

    found = metrics.find(["all"])
    return ("loss", *(metric.name for metric in found if metric.pair)), tuple(metric.name for metric in found)


def add_to(desk: Desk, jobs: Jobs) -> None:
    @ui.page("/evaluate", response_timeout=30)
    async def page(request: Request, run: str = "", against: str | None = None) -> None:
        with framed(request, "evaluate") as t:
            heading(t("evaluate.title"), t("evaluate.lead"))
            found = await aside(partial(api.runs, desk.runs))
            names = [] if isinstance(found, SartorError) else [r.name for r in found if r.state == "finished"]
            if not names:
                with card(), empty(t("evaluate.none"), t("evaluate.none_next")):
                    link(t("nav.runs"), "/runs", "btn main")
                return
            await aside(metric_names)
            await Evaluating(desk, jobs, t, names, run if run in names else names[0], against).draw()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a comparison left in the run's folder."""

    verdict: Verdict
    remarks: Sequence[str]
    scores: Sequence[ScoreRow]
    base: Sequence[Mapping[str, Any]]
    tuned: Sequence[Mapping[str, Any]]


def read(desk: Desk, run: str, lang: str) -> Outcome | None:
    """The verdict and the answers of a run; None before it was compared. Raises: RunError for damaged files."""
    from sartor.use import report, wording

    folder = desk.run(run)
    if not folder.verdict.exists():
        return None
    files = report.read_run(folder)
    if files.verdict is None:
        return None
    rows = files.answers
    return Outcome(files.verdict, wording.remarks(files.verdict, lang), report.score_rows(files),
                   rows.get("base-held_out", ()), rows.get("tuned-held_out", ()))  # fmt: skip


class Evaluating:
    """One run under judgement."""

    def __init__(self, desk: Desk, jobs: Jobs, t: Words, names: list[str], run: str, against: str | None) -> None:
        self.desk, self.jobs, self.t, self.names, self.run = desk, jobs, t, names, run
        self.metric, self.longest = "loss", 128
        self.metrics: list[str] = []
        """Empty: all of them."""
        self.against = self._last_against()
        if against is not None:
            known = several.things(desk, run, names)
            self.against = [thing for thing in against.split(",") if thing in known]
        self.seen: Any = None
        self.order, self.shown = "row", AT_ONCE

    async def draw(self) -> None:
        t = self.t
        with card():
            with ui.element("div").classes("fields"):
                ui.select(self.names, value=self.run, label=t("runs.run"), on_change=self._choose).props(
                    "outlined dense"
                )
                ui.select(
                    list(metric_names()[0]),
                    value=self.metric,
                    label=t("evaluate.decides"),
                    on_change=lambda e: setattr(self, "metric", e.value),
                ).props("outlined dense")
                ui.select(
                    list(metric_names()[1]),
                    value=[],
                    multiple=True,
                    label=t("evaluate.metrics"),
                    on_change=self._measure,
                ).props("outlined dense use-chips")
                ui.number(
                    "max_new_tokens",
                    value=self.longest,
                    min=1,
                    precision=0,
                    on_change=lambda e: setattr(self, "longest", int(e.value or 128)),
                ).props("outlined dense")
            self.others = (
                ui.select(
                    self._things(),
                    value=self.against,
                    multiple=True,
                    label=t("evaluate.against"),
                    on_change=self._oppose,
                )
                .props("outlined dense use-chips")
                .classes("w-full")
            )
            with line():
                self.start = button(t("evaluate.start"), self._start, "main")
                text(t("evaluate.hint"), "soft small")
            self.progress = ui.element("div").classes("w-full")
        self.out = ui.element("div").classes("flex flex-col gap-5 w-full")
        await self._redraw()
        ui.timer(EVERY_S, self._redraw)

    def _things(self) -> dict[str, str]:
        found = [*several.things(self.desk, self.run, self.names), *self.against]
        return {thing: several.shown_name(thing, self.t) for thing in found}

    def _last_against(self) -> list[str]:
        """What the run was compared with last, so that a reload shows it."""
        jobs = [job for job in self.jobs.all() if job.run == self.run and job.kind in ("compare", "contest")]
        return list(jobs[-1].arguments["things"][1:]) if jobs and jobs[-1].kind == "contest" else []

    async def _choose(self, event: Any) -> None:
        self.run, self.seen = event.value, None
        self.against = self._last_against()
        self.others.set_options(self._things(), value=self.against)
        await self._redraw()

    async def _oppose(self, event: Any) -> None:
        self.against = list(event.value or ())
        await self._redraw()

    def _measure(self, event: Any) -> None:
        self.metrics = list(event.value or ())

    async def _start(self) -> None:
        job = self._job()
        if job is None or job.state() not in ("waiting", "running"):
            overrides = [f"primary_metric={self.metric}", f"max_new_tokens={self.longest}"]
            if self.metrics:
                wanted = [*self.metrics, *([self.metric] if self.metric not in (*self.metrics, "loss") else [])]
                overrides.append(f"metrics={','.join(wanted)}")
            if self.against:
                things = [f"runs/{self.run}", *self.against]
                out = several.place(self.run, things, overrides)
                self.jobs.add("contest", self.run, things=things, overrides=overrides, out=out)
            else:
                self.jobs.add("compare", self.run, run=f"runs/{self.run}", overrides=overrides)
        await self._redraw()

    def _job(self) -> Job | None:
        """The newest about the run and what it is compared with."""
        if not self.against:
            return self.jobs.of(self.run, "compare")
        wanted = [f"runs/{self.run}", *self.against]
        found = [job for job in self.jobs.all() if job.kind == "contest" and job.arguments["things"] == wanted]
        return found[-1] if found else None

    async def _redraw(self) -> None:
        job = self._job()
        state = job.state() if job else None
        told = (job.read("progress.json") or {}) if job else {}
        now = ((self.run, *self.against), job and job.id, state, told.get("done"), told.get("total"))
        if now == self.seen:
            return
        ended = self.seen is None or self.seen[2] != state or self.seen[:2] != now[:2]
        self.seen = now
        self._draw_progress(job, state, told)
        if ended:
            await self._draw_outcome(job if state == "done" else None)

    def _draw_progress(self, job: Job | None, state: str | None, told: Mapping[str, Any]) -> None:
        t = self.t
        self.progress.clear()
        with self.progress:
            if state in ("waiting", "running") and job:
                with line("spread"):
                    done, total = told.get("done", 0), told.get("total")
                    said = t("evaluate.progress", done=done, total=total) if total else t("evaluate.loading")
                    text(said if state == "running" else t("state.waiting"), "num")
                    button(t("train.stop"), job.stop, "quiet danger")
                with ui.element("div").classes("meter"):
                    ui.element("div").style(f"width:{100 * done / total if total else 0:.0f}%")
            elif state == "failed" and job:
                ended = job.read("ended.json") or {"what": job.log(2000)}
                trouble(t, SartorError(ended.get("what", ""), ended.get("where", ""), ended.get("fix", "")))

    async def _draw_outcome(self, done: Job | None) -> None:
        if self.against:
            contest = await aside(partial(several.read, self.desk, done)) if done else None
            self.out.clear()
            with self.out:
                if isinstance(contest, SartorError):
                    trouble(self.t, contest)
                elif contest is not None:
                    several.Several(self.t, self.run, contest).draw()
            return
        outcome = await aside(partial(read, self.desk, self.run, self.t.lang))
        self.out.clear()
        with self.out:
            if isinstance(outcome, RunError | SartorError):
                trouble(self.t, outcome)
            elif outcome is None:
                with card():
                    empty(self.t("evaluate.not_yet"), self.t("evaluate.not_yet_next"))
            else:
                self._verdict(outcome)
                self._scores(outcome)
                self._answers(outcome)

    def _verdict(self, outcome: Outcome) -> None:
        t, verdict = self.t, outcome.verdict
        with card():
            with line("spread"):
                with line():
                    text(t("runs.verdict"), tag="h2")
                    pill(t.get(f"verdict.{verdict.outcome}", verdict.outcome), verdict.outcome)
                with line():
                    address = f"/runs/{quote(self.run)}/file/report.html"
                    link(t("evaluate.report"), address).props("target=_blank")
                    download = link(t("evaluate.download"), address)
                    download.props["download"] = f"{self.run}-report.html"
            text(verdict.sentence(t.lang)).style("font-size:1.12rem;line-height:1.5;max-width:72ch")
            interval_bar(t, verdict.primary)
            for remark in (*outcome.remarks, *verdict.notes):
                text(remark, "soft small")

    def _scores(self, outcome: Outcome) -> None:
        t = self.t
        head = [
            (t("evaluate.metric"), "wide"),
            (t("evaluate.base"), "num"),
            (t("evaluate.tuned"), "num"),
            (t("evaluate.difference"), "num"),
            (t("evaluate.interval"), "num"),
            (t("evaluate.scale"), "num"),
        ]
        with card("flush"):
            table(head, [self._score(row) for row in outcome.scores if not row.folded])
            folded = [self._score(row) for row in outcome.scores if row.folded]
            if folded:
                with ui.expansion(t("evaluate.more_scores")).classes("w-full"):
                    table(head, folded)

    def _score(self, row: ScoreRow) -> list[Any]:
        from sartor.use.wording import interval
        from sartor.use.wording import number as figure

        d = row.difference

        def name() -> None:
            text(d.metric + (f" · {self.t('evaluate.deciding')}" if d.metric == self._primary(row) else ""), tag="b")
            text(row.meaning.get(self.t.lang, ""), "soft small")

        kind = {"better": "good", "worse": "bad"}.get(d.outcome, "")
        return [name, figure(d.base), figure(d.tuned), partial(text, figure(d.difference, True), kind, "span"),
                interval(d), f"{row.scale} {row.direction}"]  # fmt: skip

    def _primary(self, row: ScoreRow) -> str:
        return row.difference.metric if row.difference.p_holm is None else ""

    def _answers(self, outcome: Outcome) -> None:
        t = self.t
        pairs = list(zip(outcome.base, outcome.tuned, strict=False))
        if not pairs:
            return
        names = [name for name in metric_names()[0] if name == "loss" or name in (pairs[0][1].get("scores") or {})]
        with card():
            with line("spread"):
                text(t("evaluate.answers"), tag="h2")
                options = {"row": t("evaluate.by_row")} | {
                    f"{name} {way}": f"{name} {sign}" for name in names for way, sign in (("up", "↑"), ("down", "↓"))
                }

                def sort(event: Any) -> None:
                    self.order, self.shown = event.value, AT_ONCE
                    fill()

                ui.select(options, value=self.order, label=t("evaluate.sort"), on_change=sort).props("outlined dense")
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
                        button(t("dataset.more", count=len(pairs) - self.shown), more)

            fill()

    def _pair(self, base: Mapping[str, Any], tuned: Mapping[str, Any]) -> None:
        t, label = self.t, str(tuned.get("label") or "")
        with ui.element("article").classes("answer"):
            with line("spread"):
                text(tuned.get("question") or tuned.get("prompt") or "", tag="b")
                text(tuned.get("id", ""), "soft small", tag="span")
            text(f"{t('evaluate.reference')}: {label}", "soft")
            with ui.element("div").classes("pair"):
                for who, row in (("base", base), ("tuned", tuned)):
                    with ui.element("div"):
                        loss = row.get("loss")
                        figure = f" · {t('runs.loss')} {loss:.3f}" if isinstance(loss, float) else ""
                        text(t(f"evaluate.{who}") + figure + f" · {row.get('stop_reason', '')}", "who num")
                        ui.html(marked(str(row.get("predict") or ""), label), sanitize=False).classes("say assistant")


def interval_bar(t: Words, difference: Difference) -> None:
    """The difference with its interval beside zero, drawn to scale."""
    from sartor.use.wording import number as figure

    low, high = difference.low, difference.high
    if low is None or high is None:
        return
    left, right = min(low, 0.0), max(high, 0.0)
    margin = 0.08 * (right - left or 1.0)
    left, right = left - margin, right + margin

    def at(value: float) -> str:
        return f"{100 * (value - left) / (right - left):.2f}%"

    with ui.element("div").classes(f"interval {difference.outcome}").props("role=img") as bar:
        bar.props["aria-label"] = f"{t('evaluate.difference')} {figure(difference.difference, True)}"
        ui.element("div").classes("axis")
        ui.element("div").classes("zero").style(f"left:{at(0.0)}")
        ui.element("div").classes("span").style(f"left:{at(low)};width:calc({at(high)} - {at(low)})")
        ui.element("div").classes("dot").style(f"left:{at(difference.difference)}")
        for value in (low, high, 0.0):
            text(figure(value, value != 0), "tick").style(f"left:{at(value)}")


def ordered(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], order: str
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The pairs by the tuned answers' score; rows without one come last."""
    name, _, way = order.partition(" ")
    if not way:
        return list(pairs)

    def value(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> float | None:
        row = pair[1]
        found = row.get("loss") if name == "loss" else (row.get("scores") or {}).get(name)
        return float(found) if isinstance(found, int | float) else None

    known = [(number, pair) for pair in pairs if (number := value(pair)) is not None]
    known.sort(key=lambda item: item[0], reverse=way == "down")
    return [pair for _, pair in known] + [pair for pair in pairs if value(pair) is None]


def marked(answer: str, reference: str) -> str:
    """The answer as HTML, what the reference has too underlined in green; all text escaped."""
    from sartor.use.marking import mark

    return "".join(
        f"<ins>{html.escape(plain(part.text))}</ins>" if part.shared and part.text.strip()
        else html.escape(plain(part.text))
        for part in mark(answer, reference)
    )  # fmt: skip
