"""The page `/runs/NAME`: one run as it goes: curves, figures, end time, log, checkpoints, settings, files."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from fastapi import Request
from fastapi.responses import FileResponse, PlainTextResponse, Response
from nicegui import app, ui

from sartor.base.config import to_yaml
from sartor.base.errors import SartorError
from sartor.base.files import move_to_trash
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
    size,
    table,
    text,
)
from sartor.web.form import parse_yaml
from sartor.web.i18n import Words
from sartor.web.jobs import Jobs
from sartor.web.run_monitor import RunMonitor, RunMonitors, clock, duration
from sartor.web.workspace import Workspace

EVERY_S = 1.0
SMALL_POINTS = 400
SMALL = ("learning_rate", "grad_norm", "speed", "memory_bytes")


def add_to(desk: Workspace, jobs: Jobs, watches: RunMonitors) -> None:
    @ui.page("/runs/{name}", response_timeout=30)
    async def page(request: Request, name: str) -> None:
        with page_frame(request, "runs", name) as t:
            run = RunDir(desk.resolve_inside(name, desk.runs))
            watch = watches.of(run)
            await run_in_thread(watch.refresh)
            if not run.exists() and jobs.of(name) is None:
                heading(name)
                with card(), empty(t("runs.gone"), t("runs.gone_next")):
                    link(t("nav.runs"), "/runs", "btn main")
                return
            RunView(desk, jobs, t, name, run, watch).draw()

    @app.get("/runs/{name}/file/{path:path}")
    def file(name: str, path: str) -> Response:
        """A file of a run, as a download; nothing of it is run or shown as a page, but for the report."""
        try:
            run = desk.run(name)
            found = desk.resolve_inside(path, run.path)
        except SartorError:
            return PlainTextResponse("Not here.", 404)
        if not found.is_file():
            return PlainTextResponse("Not here.", 404)
        shown = found.name in ("report.html", "training_loss.png")
        answer = FileResponse(found, filename=found.name, content_disposition_type="inline" if shown else "attachment")
        answer.headers["content-security-policy"] = (
            "default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'; sandbox allow-downloads"
        )
        return answer


class RunView:
    """What the window shows of a run; every second what is new is drawn, from the folder alone."""

    def __init__(self, desk: Workspace, jobs: Jobs, t: Words, name: str, run: RunDir, watch: RunMonitor) -> None:
        self.desk, self.jobs, self.t, self.name, self.run, self.watch = desk, jobs, t, name, run, watch
        self.axis, self.smoothing, self.log = "step", 1, False
        self.seen: Any = None
        self.state = ""
        self.told: Any = None
        self.drawn_at, self.drawn_evals = -1, 0
        """How many steps and evaluations the charts show."""

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
                text(t("runs.loss"), tag="h2")
                self._controls()
            self.loss = ui.echart(chart([])).style("height:340px;width:100%")
        with ui.element("div").classes("pair"):
            self.small = {}
            for key in SMALL:
                with card():
                    text(t(f"runs.{key}"), "small soft")
                    self.small[key] = ui.echart(chart([], legend=False)).style("height:150px;width:100%")
        self._folded()
        self._redraw()
        ui.timer(EVERY_S, self._redraw)

    def _controls(self) -> None:
        t = self.t
        with line():
            for attribute, options in (
                ("axis", {"step": t("runs.step"), "epoch": t("runs.epoch"), "time": t("runs.minutes")}),
                ("smoothing", {level: t(f"runs.smooth_{level}") for level in range(3)}),
                ("log", {False: t("runs.linear"), True: t("runs.log_scale")}),
            ):
                ui.select(options, value=getattr(self, attribute), on_change=partial(self._set, attribute)).props(
                    "dense borderless options-dense"
                )

    def _set(self, attribute: str, event: Any) -> None:
        setattr(self, attribute, event.value)
        self._draw_loss()

    def _state(self) -> str:
        """The run's state; before its process has written anything, its job's."""
        state = self.watch.state()
        job = self.jobs.of(self.name, "train")
        if job is not None and job.state() in ("waiting", "running") and state != "running":
            return job.state()
        left = job.state() if job is not None and state == "new" else ""
        return left if left in ("failed", "stopped") else state

    def _redraw(self) -> None:
        version, state = self.watch.refresh(), self._state()
        if (version, state) == self.seen:
            return
        self.seen = (version, state)
        if state != self.state:
            self.state = state
            self.pill.clear()
            with self.pill:
                pill(self.t.get(f"state.{state}", state), state)
            self._act()
            self.drawn_at = -1
        self._figure()
        if grown(self.drawn_at, len(self.watch.steps)) or len(self.watch.evals) != self.drawn_evals:
            self.drawn_at, self.drawn_evals = len(self.watch.steps), len(self.watch.evals)
            self._draw_loss()
            self._draw_small()
        self._tell()
        self._fill()

    def _act(self) -> None:
        t, name = self.t, quote(self.name)
        self.actions.clear()
        with self.actions:
            if self.state in ("running", "waiting"):
                button(t("train.stop"), self._stop, "danger")
                return
            if self.state in ("interrupted", "failed", "new", "stopped"):
                button(t("runs.resume"), self._resume, "main")
            if self.state == "finished":
                link(t("nav.evaluate"), f"/evaluate?run={name}", "btn main")
                link(t("nav.chat"), f"/chat?run={name}")
                link(t("nav.home"), f"/home?run={name}")
            link(t("runs.again"), f"/train?run={name}")
            button(t("runs.trash"), self._trash, "danger")

    def _stop(self) -> None:
        job = self.jobs.of(self.name, "train")
        if job is not None and job.state() in ("waiting", "running"):
            job.stop()
        elif self.watch.last and self.watch.state() == "running":
            _end(int(self.watch.last["pid"]))
        with self.notice:
            text(self.t("runs.stopping"), "notice warn-n")

    def _resume(self) -> None:
        settings = self.run.config if self.run.exists() else self.desk.jobs / f"{self.name}.yaml"
        self.jobs.add("train", self.name, settings=str(settings))
        self.seen = None
        self._redraw()

    def _trash(self) -> None:
        if self._state() in ("running", "waiting"):
            return
        if self.run.path.exists():
            move_to_trash(self.run.path)
        ui.navigate.to("/runs")

    def _figure(self) -> None:
        t, watch = self.t, self.watch
        done, total = (watch.steps[-1] if watch.steps else 0), watch.total_steps
        left = watch.seconds_left() if self.state == "running" else None
        set_text(self.steps, t("runs.steps_of", done=number(done), total=number(total)))
        ends = t("runs.until", left=duration(left), end=clock(time.time() + left)) if left is not None else ""
        set_text(self.until, ends)
        self.meter.style(f"width:{100 * done / total if total else 0:.1f}%")
        latest = {key: values[-1] if values else None for key, values in watch.curves.items()}
        memory = latest["memory_bytes"]
        total = watch.memory_total or psutil.virtual_memory().total
        rate = latest["learning_rate"]
        told = [
            number(latest["loss"]),
            number(watch.evals[-1][3] if watch.evals else None),
            f"{rate:.2e}" if rate is not None else "–",
            number(latest["grad_norm"]),
            number(round(latest["speed"])) if latest["speed"] else "–",
            _of_total(memory, total) if memory else "–",
        ]
        if not self.values or self.device != watch.device:
            self.device = watch.device
            where = "process" if watch.device == "cpu" else "gpu"
            names = ("loss", "eval_loss", "learning_rate", "grad_norm", "speed", f"memory_{where}")
            self.figures.clear()
            with self.figures:
                self.values = facts([(t(f"runs.{name}"), "–") for name in names])
        for element, value in zip(self.values, told, strict=True):
            set_text(element, value)

    def _draw_loss(self) -> None:
        t, watch = self.t, self.watch
        curves = [Curve(t("runs.learned_rows"), watch.line("loss", self.axis, self.smoothing))]
        if self.smoothing:
            curves.insert(0, Curve(t("runs.unsmoothed"), watch.line("loss", self.axis), faint=True))
        if held_out := watch.held_out(self.axis):
            curves.append(Curve(t("runs.held_out"), held_out, dots=True, color=1))
        self.loss.options.update(chart(curves, log=self.log))
        self.loss.update()

    def _draw_small(self) -> None:
        for key, drawn in self.small.items():
            points = self.watch.line(key, most=SMALL_POINTS)
            if key == "memory_bytes":
                points = [[x, y / 2**30] for x, y in points]
            drawn.options.update(chart([Curve(key, points)], legend=False))
            drawn.update()

    def _tell(self) -> None:
        """What went wrong, as the run or its process says it."""
        now = (self.state, bool(self.watch.steps), self.watch.last)
        if now == self.told:
            return
        self.told = now
        self.notice.clear()
        job = self.jobs.of(self.name, "train")
        ended = job.read("ended.json") if job is not None else None
        with self.notice:
            if self.state == "failed" and ended and ended.get("what"):
                show_error(self.t, SartorError.from_json(ended))
            elif self.state == "failed" and self.watch.last:
                text(self.watch.last.get("error", ""), "notice bad-n")
            elif self.state == "failed" and job is not None:
                text(job.log(3000), "code", tag="pre")
            elif self.state == "interrupted":
                text(self.t("runs.interrupted"), "notice warn-n")
            elif self.state == "running" and not self.watch.steps:
                text(self.t("runs.preparing"), "notice")

    def _folded(self) -> None:
        self.folded: dict[str, tuple[ui.expansion, ui.element]] = {}
        with card("flush"):
            for key in ("samples", "log", "checkpoints", "ledger", "settings", "files"):
                with ui.expansion(self.t(f"runs.{key}"), on_value_change=self._fill).classes("w-full") as fold:
                    self.folded[key] = fold, ui.element("div").classes("w-full").style("padding:0 4px 12px")

    def _fill(self) -> None:
        """The parts that are unfolded, made anew."""
        for key, (fold, place) in self.folded.items():
            if fold.value:
                place.clear()
                with place:
                    getattr(self, f"_{key}")()

    def _samples(self) -> None:
        found = [event for event in self.watch.lines if event["kind"] == "sample"]
        if not found:
            text(self.t("runs.no_samples"), "soft small")
        for event in found[-20:]:
            text(f"{self.t('runs.step')} {event.get('step')}", "who")
            if asked := str(event.get("prompt") or ""):
                text(asked, "say user")
            text(event.get("text", json.dumps(event, ensure_ascii=False)), "say assistant")

    def _log(self) -> None:
        lines = [
            f"{clock(e.get('time'))}  {e['kind']:<12} "
            + ", ".join(f"{key} {value}" for key, value in e.items() if key not in ("time", "kind", "pid", "text"))
            + str(e.get("text", ""))
            for e in self.watch.lines[-100:]
        ]
        text("\n".join(lines) or "–", "code", tag="pre")
        job = self.jobs.of(self.name, "train")
        if job is not None and (printed := job.log().strip()):
            text(printed, "code", tag="pre")

    def _checkpoints(self) -> None:
        rows = [[path.name, clock(path.stat().st_mtime)] for path in self.run.checkpoints()]
        if rows:
            table([(self.t("runs.checkpoint"), ""), (self.t("runs.made"), "num")], rows)
        else:
            text(self.t("runs.no_checkpoints"), "soft small")

    def _ledger(self) -> None:
        try:
            told = self.run.read_json("data.json")["ledger"]
        except (SartorError, KeyError):
            return
        t = self.t
        facts(
            [
                (t("dataset.read"), number(told["read"])),
                (t("runs.learned_rows"), number(told["training"])),
                (t("runs.held_out_rows"), number(told["held_out"])),
                (t("dataset.left_out"), number(told["left_out"])),
                (t("dataset.skipped"), number(len(told["skipped"]))),
            ]
        )
        rows: list[list[Any]] = [[str(s["id"]), *t.skipped(s)] for s in told["skipped"][:100]]
        if rows:
            table([(t("data.line"), ""), (t("data.reason"), "wide"), (t("data.fix"), "wide")], rows)

    def _settings(self) -> None:
        for file in (self.run.config, self.run.plan):
            if file.exists():
                text(file.name, "who")
                text(_as_text(file), "code", tag="pre")

    def _files(self) -> None:
        found = sorted(path for path in self.run.path.rglob("*") if path.is_file())[:300]
        rows: list[list[Any]] = []
        for path in found:
            name = path.relative_to(self.run.path).as_posix()
            address = f"/runs/{quote(self.name)}/file/{quote(name)}"
            rows.append([partial(link, name, address, ""), size(path.stat().st_size)])
        table([(self.t("data.file"), "wide"), (self.t("data.size"), "num")], rows)


def _as_text(file: Path) -> str:
    content = file.read_text(encoding="utf-8", errors="replace")
    return to_yaml(parse_yaml(content)) if file.suffix == ".yaml" else content


def grown(drawn: int, there: int) -> bool:
    """Whether a chart of `drawn` steps would look different with those that are there: no pixel is finer than that."""
    return drawn < 0 or there - drawn > drawn / 400


def _of_total(memory: float, total: float) -> str:
    return f"{memory / 2**30:.1f} / {total / 2**30:.0f} GiB"


def _end(pid: int) -> None:
    """Ask a training that a terminal started to end; only a process that is ours."""
    try:
        process = psutil.Process(pid)
        if any("sartor" in word for word in process.cmdline()):
            process.terminate()
    except psutil.Error:
        return
