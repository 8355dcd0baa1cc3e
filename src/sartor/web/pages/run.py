"""The page `/runs/NAME`: a run live, with curves, key figures, log, checkpoints, settings and files."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import Any
from urllib.parse import quote

import psutil
from fastapi import Request
from fastapi.responses import FileResponse, PlainTextResponse, Response
from nicegui import app, ui

from sartor.base.errors import RunError, SartorError
from sartor.base.files import move_to_trash
from sartor.base.i18n import tr
from sartor.base.process import ProcessIdentity
from sartor.base.rundir import RunDir
from sartor.web.chart_options import Curve, chart
from sartor.web.components import (
    button,
    card,
    empty,
    facts,
    heading,
    line,
    link,
    number,
    page_frame,
    pill,
    run_in_thread,
    set_text,
    show_error,
    text,
)
from sartor.web.i18n import Translator
from sartor.web.jobs import Jobs
from sartor.web.pages.run_details import RunDetails
from sartor.web.run_monitor import RunMonitor, RunMonitors, clock, duration
from sartor.web.value_names import STATES
from sartor.web.workspace import Workspace

EVERY_S = 1.0
SMALL_POINTS = 400
SMALL = {
    "learning_rate": tr("learning rate"),
    "grad_norm": tr("gradient norm"),
    "speed": tr("tokens/s"),
    "memory_bytes": tr("memory, GiB"),
}
"""The small charts."""
SMOOTHING = {0: tr("no smoothing"), 1: tr("light smoothing"), 2: tr("strong smoothing")}


def add_to(workspace: Workspace, jobs: Jobs, monitors: RunMonitors) -> None:
    @ui.page("/runs/{name}", response_timeout=30)
    async def page(request: Request, name: str) -> None:
        with page_frame(request, "runs", name) as t:
            run = RunDir(workspace.resolve_inside(name, workspace.runs))
            monitor = monitors.of(run)
            await run_in_thread(monitor.refresh)
            if not run.exists() and jobs.of(name) is None:
                heading(name)
                with card(), empty(t("Run not found"), t("It may have been moved to the trash (runs/.trash).")):
                    link(t("Runs"), "/runs", "btn main")
                return
            RunView(workspace, jobs, t, name, run, monitor).draw()

    @app.get("/runs/{name}/file/{path:path}")
    def file(name: str, path: str) -> Response:
        """A file of a run as a download; only the report and the loss chart are shown inline, in a sandbox."""
        try:
            run = workspace.run(name)
            found = workspace.resolve_inside(path, run.path)
        except SartorError:
            return PlainTextResponse("Not found.", 404)
        if not found.is_file():
            return PlainTextResponse("Not found.", 404)
        inline = found.name in ("report.html", "training_loss.png")
        response = FileResponse(
            found, filename=found.name, content_disposition_type="inline" if inline else "attachment"
        )
        response.headers["content-security-policy"] = (
            "default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'; sandbox allow-downloads"
        )
        return response


class RunView:
    """The live view of a run; once a second it shows what is new in the run's folder."""

    def __init__(
        self, workspace: Workspace, jobs: Jobs, t: Translator, name: str, run: RunDir, monitor: RunMonitor
    ) -> None:
        self.workspace, self.jobs, self.t, self.name, self.run, self.monitor = workspace, jobs, t, name, run, monitor
        self.axis, self.smoothing, self.log = "step", 1, False
        self.seen: Any = None
        self.state = ""
        self.noticed: Any = None
        self.drawn_at, self.drawn_evals = -1, 0
        """Number of steps and evaluations in the charts."""

    def draw(self) -> None:
        t = self.t
        with line("spread"):
            with line():
                heading(self.name)
                self.pill = ui.element("span")
            self.actions = line()
        self.notice = ui.element("div")
        with card():
            with ui.element("div").classes("flex flex-col gap-2 w-full"):
                with line("spread num"):
                    self.steps, self.until = text(""), text("", "soft")
                with ui.element("div").classes("meter"):
                    self.meter = ui.element("div")
            self.figures, self.values, self.device = ui.element("div").classes("w-full"), list[Any](), ""
        with card():
            with line("spread"):
                text(t("loss"), tag="h2")
                self._controls()
            self.loss = ui.echart(chart([])).style("height:340px;width:100%")
        with ui.element("div").classes("pair"):
            self.small = {}
            for key, title in SMALL.items():
                with card():
                    text(t(title), "small soft")
                    self.small[key] = ui.echart(chart([], legend=False)).style("height:150px;width:100%")
        self.details = RunDetails(self.run, self.monitor, self.jobs, t)
        self.details.draw()
        self._redraw()
        ui.timer(EVERY_S, self._redraw)

    def _controls(self) -> None:
        t = self.t
        with line():
            for attribute, options in (
                ("axis", {"step": t("step"), "epoch": t("epoch"), "time": t("minutes")}),
                ("smoothing", {level: t(name) for level, name in SMOOTHING.items()}),
                ("log", {False: t("linear"), True: t("log scale")}),
            ):
                ui.select(options, value=getattr(self, attribute), on_change=partial(self._set, attribute)).props(
                    "dense borderless options-dense"
                )

    def _set(self, attribute: str, event: Any) -> None:
        setattr(self, attribute, event.value)
        self._draw_loss()

    def _state(self) -> str:
        """The run's state, or its job's before the process has written any event."""
        state = self.monitor.state()
        job = self.jobs.of(self.name, "train")
        if job is not None and job.state() in ("waiting", "running") and state != "running":
            return job.state()
        ended = job.state() if job is not None and state == "new" else ""
        return ended if ended in ("failed", "stopped") else state

    def _redraw(self) -> None:
        version, state = self.monitor.refresh(), self._state()
        if (version, state) == self.seen:
            return
        self.seen = (version, state)
        if state != self.state:
            self.state = state
            self.pill.clear()
            with self.pill:
                pill(self.t.lookup(STATES, state), state)
            self._show_actions()
            self.drawn_at = -1
        self._show_figures()
        if needs_redraw(self.drawn_at, len(self.monitor.steps)) or len(self.monitor.evals) != self.drawn_evals:
            self.drawn_at, self.drawn_evals = len(self.monitor.steps), len(self.monitor.evals)
            self._draw_loss()
            self._draw_small()
        self._show_notice()
        self.details.update()

    def _show_actions(self) -> None:
        t, name = self.t, quote(self.name)
        self.actions.clear()
        with self.actions:
            if self.state in ("running", "waiting"):
                button(t("Stop"), self._stop, "danger")
                return
            if self.state in ("interrupted", "failed", "new", "stopped"):
                button(t("Resume"), self._resume, "main")
            if self.state == "finished":
                link(t("Evaluate"), f"/evaluate?run={name}", "btn main")
                link(t("Chat"), f"/chat?run={name}")
                link(t("Export"), f"/export?run={name}")
            link(t("New run with these settings"), f"/train?run={name}")
            button(t("Move to trash"), self._trash, "danger")

    def _stop(self) -> None:
        job = self.jobs.of(self.name, "train")
        if job is not None and job.state() in ("waiting", "running"):
            job.stop()
        elif self.monitor.last and self.monitor.state() == "running":
            _end(ProcessIdentity.from_json(self.monitor.last.get("process")))
        with self.notice:
            text(self.t("Stopping after the current step; a checkpoint is saved."), "notice warn-n")

    def _resume(self) -> None:
        settings = self.run.config if self.run.exists() else self.workspace.jobs / f"{self.name}.yaml"
        with contextlib.suppress(RunError):  # it is in the queue already, which is what the page then shows
            self.jobs.add("train", self.name, settings=str(settings))
        self.seen = None
        self._redraw()

    def _trash(self) -> None:
        if self._state() in ("running", "waiting"):
            return
        if self.run.path.exists():
            move_to_trash(self.run.path)
        ui.navigate.to("/runs")

    def _show_figures(self) -> None:
        t, monitor = self.t, self.monitor
        done, total = (monitor.steps[-1] if monitor.steps else 0), monitor.total_steps
        left = monitor.seconds_left() if self.state == "running" else None
        set_text(self.steps, t("step {done} of {total}", done=number(done), total=number(total)))
        ends = (
            t("{left} left, finishes at {end}", left=duration(left), end=clock(time.time() + left))
            if left is not None
            else ""
        )
        set_text(self.until, ends)
        self.meter.style(f"width:{100 * done / total if total else 0:.1f}%")
        latest = {key: values[-1] if values else None for key, values in monitor.curves.items()}
        memory = latest["memory_bytes"]
        total = monitor.memory_total or psutil.virtual_memory().total
        rate = latest["learning_rate"]
        shown = [
            number(latest["loss"]),
            number(monitor.evals[-1][3] if monitor.evals else None),
            f"{rate:.2e}" if rate is not None else "–",
            number(latest["grad_norm"]),
            number(round(latest["speed"])) if latest["speed"] else "–",
            _of_total(memory, total) if memory else "–",
        ]
        if not self.values or self.device != monitor.device:
            self.device = monitor.device
            memory_name = t("process memory") if monitor.device == "cpu" else t("GPU memory")
            names = [t("loss"), t("held-out loss"), *(t(SMALL[key]) for key in ("learning_rate", "grad_norm", "speed"))]
            self.figures.clear()
            with self.figures:
                self.values = facts([(name, "–") for name in (*names, memory_name)])
        for element, value in zip(self.values, shown, strict=True):
            set_text(element, value)

    def _draw_loss(self) -> None:
        t, monitor = self.t, self.monitor
        curves = [Curve(t("training rows"), monitor.line("loss", self.axis, self.smoothing))]
        if self.smoothing:
            curves.insert(0, Curve(t("unsmoothed"), monitor.line("loss", self.axis), faint=True))
        if held_out := monitor.held_out(self.axis):
            curves.append(Curve(t("held-out rows"), held_out, dots=True, color=1))
        self.loss.options.update(chart(curves, log=self.log))
        self.loss.update()

    def _draw_small(self) -> None:
        for key, drawn in self.small.items():
            points = self.monitor.line(key, max_points=SMALL_POINTS)
            if key == "memory_bytes":
                points = [[x, y / 2**30] for x, y in points]
            drawn.options.update(chart([Curve(key, points)], legend=False))
            drawn.update()

    def _show_notice(self) -> None:
        """What went wrong, from the run's events or its job."""
        now = (self.state, bool(self.monitor.steps), self.monitor.last)
        if now == self.noticed:
            return
        self.noticed = now
        self.notice.clear()
        job = self.jobs.of(self.name, "train")
        error = job.error() if job is not None else None
        with self.notice:
            if self.state == "failed" and error:
                show_error(self.t, error)
            elif self.state == "failed" and self.monitor.last:
                text(self.monitor.last.get("error", ""), "notice bad-n")
            elif self.state == "failed" and job is not None:
                text(job.log(3000), "code", tag="pre")
            elif self.state == "interrupted":
                text(
                    self.t(
                        "This run was stopped. Resume continues from its latest checkpoint, with bit-identical results."
                    ),
                    "notice warn-n",
                )
            elif self.state == "running" and not self.monitor.steps:
                text(self.t("Reading data and loading the model…"), "notice")


def needs_redraw(drawn: int, steps: int) -> bool:
    """Whether a chart of `drawn` steps would visibly change with `steps`: by more than about one pixel."""
    return drawn < 0 or steps - drawn > drawn / 400


def _of_total(memory: float, total: float) -> str:
    return f"{memory / 2**30:.1f} / {total / 2**30:.0f} GiB"


def _end(process: ProcessIdentity | None) -> None:
    """Ask a training that was started in a terminal to end; only if the process is that one, and of this machine."""
    if process and process.is_alive():
        with contextlib.suppress(psutil.Error):
            psutil.Process(process.pid).terminate()
