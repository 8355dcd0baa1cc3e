"""The page `/runs`: all runs with state, model, data, loss and verdict, and a chart that compares selected ones."""

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
from sartor.web.i18n import Translator
from sartor.web.jobs import Jobs
from sartor.web.queue_view import QueueView
from sartor.web.run_monitor import RunMonitors, clock
from sartor.web.value_names import OUTCOMES, STATES
from sartor.web.workspace import Workspace

EVERY_S = 3.0


def add_to(workspace: Workspace, jobs: Jobs, monitors: RunMonitors) -> None:
    @ui.page("/runs", response_timeout=30)
    async def page(request: Request) -> None:
        with page_frame(request, "runs") as t:
            heading(t("Runs"), t("Each training run is a folder. Select several to compare them in one chart."))
            QueueView(jobs, t, ui.element("div")).draw()
            await RunsView(workspace, monitors, t).draw()


class RunsView:
    """The filtered, live list of runs, and the chart of the selected ones."""

    def __init__(self, workspace: Workspace, monitors: RunMonitors, t: Translator) -> None:
        self.workspace, self.monitors, self.t = workspace, monitors, t
        self.query = ""
        self.selected: list[str] = []
        self.before: Any = None
        self.chart: ui.echart | None = None

    async def draw(self) -> None:
        with card("flush"):
            with line().style("padding:12px 14px 0"):
                self.filter = ui.input(self.t("Filter by name, model, data or state"), on_change=self._filtered).props(
                    "outlined dense clearable"
                )
                self.filter.classes("grow")
            self.listed = ui.element("div")
        self.compared = ui.element("div")
        await self._redraw()
        ui.timer(EVERY_S, self._redraw)

    async def _filtered(self, event: Any) -> None:
        self.query, self.before = (event.value or "").casefold(), None
        await self._redraw()

    async def _redraw(self) -> None:
        found = await run_in_thread(partial(api.runs, self.workspace.runs))
        if found == self.before:
            return
        self.before = found
        self.listed.clear()
        with self.listed:
            if isinstance(found, SartorError):
                show_error(self.t, found)
            elif not found:
                self.filter.set_visibility(False)
                with empty(
                    self.t("No runs yet"),
                    self.t(
                        "Choose a dataset and start the first one. It continues after you close this window or "
                        "stop the page's server."
                    ),
                ):
                    link(self.t("Start training"), "/train", "btn main")
            else:
                self._table([run for run in found if self._matches(run)])

    def _matches(self, run: RunSummary) -> bool:
        return self.query in f"{run.name} {run.model} {run.data} {run.state}".casefold()

    def _table(self, found: list[RunSummary]) -> None:
        t = self.t
        rows: list[list[Any]] = []
        for run in found:
            verdict = t.lookup(OUTCOMES, run.verdict) if run.verdict else "–"
            steps = f"{number(run.step)} / {number(run.total_steps)}" if run.step is not None else "–"
            rows.append(
                [
                    partial(self._checkbox, run.name),
                    partial(link, run.name, f"/runs/{quote(run.name)}", ""),
                    partial(pill, t.lookup(STATES, run.state), run.state),
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
                (t("Run"), "wide"),
                (t("State"), ""),
                (t("Model"), ""),
                (t("Data"), ""),
                (t("step"), "num"),
                (t("loss"), "num"),
                (t("held-out loss"), "num"),
                (t("verdict"), ""),
                (t("started"), "num"),
            ],
            rows,
        )

    def _checkbox(self, name: str) -> None:
        box = ui.checkbox(value=name in self.selected, on_change=lambda e: self._select(name, e.value)).props("dense")
        box.props["aria-label"] = self.t("Compare {run}", run=name)

    def _select(self, name: str, on: bool) -> None:
        self.selected = [other for other in self.selected if other != name] + ([name] if on else [])
        self.compared.set_visibility(bool(self.selected))
        curves = []
        for place, run in enumerate(self.selected):
            monitor = self.monitors.of(self.workspace.run(run))
            monitor.refresh()
            curves.append(Curve(run, monitor.line("loss", smoothing=1), color=place))
            label = self.t("{run}, held-out", run=run)
            curves.append(Curve(label, monitor.held_out("step"), dots=True, color=place))
        options = chart([c for c in curves if c.points], x_name="")
        if self.chart is None:
            with self.compared, card():
                text(self.t("Comparison"), tag="h2")
                self.chart = ui.echart(options).style("height:340px;width:100%")
            return
        self.chart.options.clear()  # reuse the chart: removing one before the browser has drawn it is an error there
        self.chart.options.update(options)
        self.chart.update()
