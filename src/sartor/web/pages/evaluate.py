"""The page `/evaluate`: a run, what it is measured against, on which rows and by what; its progress and outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import Request
from nicegui import ui

from sartor import api
from sartor.base.errors import SartorError
from sartor.data.dataset_info import read_registry
from sartor.web.components import button, card, empty, heading, line, link, page_frame, run_in_thread, show_error, text
from sartor.web.i18n import Words
from sartor.web.jobs import Job, Jobs
from sartor.web.pages import comparison, verdict
from sartor.web.workspace import Workspace

EVERY_S = 0.7


def add_to(desk: Workspace, jobs: Jobs) -> None:
    @ui.page("/evaluate", response_timeout=30)
    async def page(request: Request, run: str = "", against: str | None = None) -> None:
        with page_frame(request, "evaluate") as t:
            heading(t("evaluate.title"), t("evaluate.lead"))
            found = await run_in_thread(partial(api.runs, desk.runs))
            names = [] if isinstance(found, SartorError) else [r.name for r in found if r.state == "finished"]
            if not names:
                with card(), empty(t("evaluate.none"), t("evaluate.none_next")):
                    link(t("nav.runs"), "/runs", "btn main")
                return
            await run_in_thread(verdict.metric_names)
            await EvaluateView(desk, jobs, t, names, run if run in names else names[0], against).draw()


@dataclass(slots=True)
class EvaluationChoice:
    """What is measured. Nothing in `against` and `datasets`: the run against its base, on the rows it held out."""

    run: str
    against: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    metric: str = "loss"
    metrics: list[str] = field(default_factory=list)
    """Empty: all of them."""
    longest: int = 128

    @property
    def things(self) -> list[str]:
        """Empty for a run against its base."""
        if not (self.against or self.datasets):
            return []
        return [f"runs/{self.run}", *(self.against or [comparison.BASE])]

    def overrides(self) -> list[str]:
        """As `api.compare` takes them. The metrics are always named, so that no Python file of a run's settings is."""
        wanted = [*self.metrics, *([self.metric] if self.metric not in (*self.metrics, "loss") else [])]
        found = [
            f"primary_metric={self.metric}",
            f"max_new_tokens={self.longest}",
            f"metrics={','.join(wanted) if self.metrics else 'all'}",
        ]
        return found + ([f"eval_dataset={','.join(self.datasets)}"] if self.datasets else [])

    def told(self) -> dict[str, Any]:
        """As a job keeps it."""
        return {
            "against": self.against,
            "datasets": self.datasets,
            "metric": self.metric,
            "metrics": self.metrics,
            "longest": self.longest,
        }

    def asked_by(self, job: Job) -> bool:
        """Whether a job measures the same things on the same rows; by what may differ."""
        chosen = job.arguments.get("choice") or {}
        same = [chosen.get(name) or [] for name in ("against", "datasets")] == [self.against, self.datasets]
        return job.run == self.run and job.kind in ("compare", "contest") and same


def last_choice(jobs: Jobs, run: str) -> EvaluationChoice:
    """What was measured last, so that a reload shows it."""
    for job in reversed(jobs.all()):
        if job.run == run and job.kind in ("compare", "contest"):
            return EvaluationChoice(run, **(job.arguments.get("choice") or {}))
    return EvaluationChoice(run)


class EvaluateView:
    """One run under judgement."""

    def __init__(self, desk: Workspace, jobs: Jobs, t: Words, names: list[str], run: str, against: str | None) -> None:
        self.desk, self.jobs, self.t, self.names = desk, jobs, t, names
        self.choice = last_choice(jobs, run)
        if against is not None:
            known = comparison.things(desk, run, names)
            self.choice = EvaluationChoice(run, [thing for thing in against.split(",") if thing in known])
        self.seen: Any = None

    async def draw(self) -> None:
        with card():
            self.fields = ui.element("div").classes("flex flex-col gap-3 w-full")
            self._fields()
            with line():
                self.start = button(self.t("evaluate.start"), self._start, "main")
                text(self.t("evaluate.hint"), "soft small")
            self.progress = ui.element("div").classes("w-full")
        self.out = ui.element("div").classes("flex flex-col gap-5 w-full")
        await self._redraw()
        ui.timer(EVERY_S, self._redraw)

    def _fields(self) -> None:
        t, choice = self.t, self.choice
        deciding, metrics = verdict.metric_names()
        self.fields.clear()
        with self.fields:
            with ui.element("div").classes("fields"):
                ui.select(self.names, value=choice.run, label=t("runs.run"), on_change=self._run).props(
                    "outlined dense"
                )
                ui.select(
                    list(deciding),
                    value=choice.metric,
                    label=t("evaluate.decides"),
                    on_change=partial(self._set, "metric"),
                ).props("outlined dense")
                self._several("metrics", dict.fromkeys(metrics))
                ui.number(
                    "max_new_tokens", value=choice.longest, min=1, precision=0, on_change=partial(self._set, "longest")
                ).props("outlined dense")
            with ui.element("div").classes("pair"):
                self._several("against", self._things())
                self._several("datasets", dict.fromkeys(self._datasets()))

    def _several(self, name: str, options: Mapping[str, str | None]) -> None:
        """A list of which any number may be chosen."""
        box = ui.select(
            {key: shown or key for key, shown in options.items()},
            value=getattr(self.choice, name),
            multiple=True,
            label=self.t(f"evaluate.{name}"),
            on_change=partial(self._set, name),
        )
        box.props("outlined dense use-chips options-dense").classes("w-full")
        box.props["hint"] = self.t(f"evaluate.{name}_none")

    def _things(self) -> dict[str, str]:
        found = [*comparison.things(self.desk, self.choice.run, self.names), *self.choice.against]
        return {thing: comparison.shown_name(thing, self.t) for thing in found}

    def _datasets(self) -> list[str]:
        try:
            return list(read_registry(self.desk.data).entries)
        except SartorError:
            return []

    async def _run(self, event: Any) -> None:
        self.choice, self.seen = last_choice(self.jobs, event.value), None
        self._fields()
        await self._redraw()

    async def _set(self, name: str, event: Any) -> None:
        value = event.value
        setattr(self.choice, name, int(value or 128) if name == "longest" else value if value is not None else [])
        await self._redraw()

    async def _start(self) -> None:
        job, choice = self._job(), self.choice
        if job is None or job.state() not in ("waiting", "running"):
            overrides, told = choice.overrides(), choice.told()
            if things := choice.things:
                out = comparison.place(choice.run, things, overrides)
                self.jobs.add("contest", choice.run, things=things, overrides=overrides, out=out, choice=told)
            else:
                self.jobs.add("compare", choice.run, run=f"runs/{choice.run}", overrides=overrides, choice=told)
        await self._redraw()

    def _job(self) -> Job | None:
        """The newest that measures this."""
        return next((job for job in reversed(self.jobs.all()) if self.choice.asked_by(job)), None)

    async def _redraw(self) -> None:
        job = self._job()
        state = job.state() if job else None
        told = (job.read("progress.json") or {}) if job else {}
        now = ((self.choice.run, *self.choice.things), job and job.id, state, told.get("done"), told.get("total"))
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
                show_error(t, SartorError.from_json(ended))

    async def _draw_outcome(self, done: Job | None) -> None:
        t, run = self.t, self.choice.run
        found: Any
        if self.choice.things:
            found = await run_in_thread(partial(comparison.read, self.desk, done)) if done else None
        else:
            found = await run_in_thread(partial(verdict.read, self.desk, run, t.lang))
        self.out.clear()
        with self.out:
            if isinstance(found, SartorError):
                show_error(t, found)
            elif isinstance(found, comparison.SavedComparison):
                comparison.ComparisonView(t, run, found).draw()
            elif found is not None:
                verdict.VerdictView(t, run, found).draw()
            else:
                with card():
                    empty(t("evaluate.not_yet"), t("evaluate.not_yet_next"))
