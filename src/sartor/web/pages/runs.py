"""The page `/runs`: all runs with state, model, data, loss and verdict; some of them in one chart."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from sartor import api
from sartor.api.list_runs import RunSummary
from sartor.base.errors import SartorError
from sartor.web.chart_options import Curve, chart
from sartor.web.components import (
    card,
    empty,
    heading,
    line,
    link,
    number,
    page_frame,
    pill,
    run_in_thread,
    show_error,
    table,
    text,
)
from sartor.web.i18n import Words
from sartor.web.jobs import Jobs
from sartor.web.pages.train import QueueView
from sartor.web.run_monitor import RunMonitors, clock
from sartor.web.workspace import Workspace

EVERY_S = 3.0


def add_to(desk: Workspace, jobs: Jobs, watches: RunMonitors) -> None:
    @ui.page("/runs", response_timeout=30)
    async def page(request: Request) -> None:
        with page_frame(request, "runs") as t:
            heading(t("runs.title"), t("runs.lead"))
            QueueView(jobs, t, ui.element("div")).draw()
            await RunsView(desk, watches, t).draw()


class RunsView:
    """The list, filtered and kept up to date, and the chart of the runs that are ticked."""

    def __init__(self, desk: Workspace, watches: RunMonitors, t: Words) -> None:
        self.desk, self.watches, self.t = desk, watches, t
        self.wanted = ""
        self.ticked: list[str] = []
        self.before: Any = None
        self.chart: ui.echart | None = None

    async def draw(self) -> None:
        with card("flush"):
            with line().style("padding:12px 14px 0"):
                self.filter = ui.input(self.t("runs.filter"), on_change=self._filtered).props(
                    "outlined dense clearable"
                )
                self.filter.classes("grow")
            self.listed = ui.element("div")
        self.compared = ui.element("div")
        await self._redraw()
        ui.timer(EVERY_S, self._redraw)

    async def _filtered(self, event: Any) -> None:
        self.wanted, self.before = (event.value or "").casefold(), None
        await self._redraw()

    async def _redraw(self) -> None:
        found = await run_in_thread(partial(api.runs, self.desk.runs))
        if found == self.before:
            return
        self.before = found
        self.listed.clear()
        with self.listed:
            if isinstance(found, SartorError):
                show_error(self.t, found)
            elif not found:
                self.filter.set_visibility(False)
                with empty(self.t("runs.none"), self.t("runs.none_next")):
                    link(self.t("train.start"), "/train", "btn main")
            else:
                self._table([run for run in found if self._matches(run)])

    def _matches(self, run: RunSummary) -> bool:
        return self.wanted in f"{run.name} {run.model} {run.data} {run.state}".casefold()

    def _table(self, found: list[RunSummary]) -> None:
        t = self.t
        rows: list[list[Any]] = []
        for run in found:
            verdict = t.get(f"verdict.{run.verdict}", "–")
            steps = f"{number(run.step)} / {number(run.total_steps)}" if run.step is not None else "–"
            rows.append(
                [
                    partial(self._tick, run.name),
                    partial(link, run.name, f"/runs/{quote(run.name)}", ""),
                    partial(pill, t.get(f"state.{run.state}", run.state), run.state),
                    Path(run.model).name,
                    run.data,
                    steps,
                    number(run.loss),
                    number(run.eval_loss),
                    partial(pill, verdict, str(run.verdict)) if run.verdict else "–",
                    clock(run.started),
                ]
            )
        table(
            [
                ("", ""),
                (t("runs.run"), "wide"),
                (t("train.state"), ""),
                (t("dataset.model"), ""),
                (t("nav.data"), ""),
                (t("runs.step"), "num"),
                (t("runs.loss"), "num"),
                (t("runs.eval_loss"), "num"),
                (t("runs.verdict"), ""),
                (t("runs.started"), "num"),
            ],
            rows,
        )

    def _tick(self, name: str) -> None:
        box = ui.checkbox(value=name in self.ticked, on_change=lambda e: self._chosen(name, e.value)).props("dense")
        box.props["aria-label"] = self.t("runs.compare_one", run=name)

    def _chosen(self, name: str, on: bool) -> None:
        self.ticked = [other for other in self.ticked if other != name] + ([name] if on else [])
        self.compared.set_visibility(bool(self.ticked))
        curves = []
        for place, run in enumerate(self.ticked):
            watch = self.watches.of(self.desk.run(run))
            watch.refresh()
            curves.append(Curve(run, watch.line("loss", smoothing=1), color=place))
            label = self.t("runs.held_out_of", run=run)
            curves.append(Curve(label, watch.held_out("step"), dots=True, color=place))
        options = chart([c for c in curves if c.points], x_name="")
        if self.chart is None:
            with self.compared, card():
                text(self.t("runs.compare"), tag="h2")
                self.chart = ui.echart(options).style("height:340px;width:100%")
            return
        self.chart.options.clear()  # one chart for all: one that goes before the browser has drawn it is an error there
        self.chart.options.update(options)
        self.chart.update()
