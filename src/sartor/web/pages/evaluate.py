"""The page `/evaluate`: compare a run with its base or other models, with progress and result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import Request
from nicegui import ui

from sartor import api
from sartor.base.errors import SartorError
from sartor.base.i18n import tr
from sartor.data.dataset_info import read_registry
from sartor.web.components import button, card, empty, heading, line, link, page_frame, run_in_thread, show_error, text
from sartor.web.i18n import Translator
from sartor.web.jobs import Job, Jobs
from sartor.web.pages import comparison, verdict
from sartor.web.workspace import Workspace

EVERY_S = 0.7
MULTIPLE = {
    "metrics": (tr("Metrics"), tr("Default: all metrics.")),
    "against": (tr("Compare with"), tr("Default: the base model.")),
    "datasets": (tr("Datasets"), tr("Default: the run's held-out rows.")),
}
"""Label and hint of the lists with multiple selection."""


def add_to(workspace: Workspace, jobs: Jobs) -> None:
    @ui.page("/evaluate", response_timeout=30)
    async def page(request: Request, run: str = "", against: str | None = None) -> None:
        with page_frame(request, "evaluate") as t:
            heading(
                t("Evaluate"),
                t(
                    "The base and the tuned model answer the same held-out rows. The verdict says whether the "
                    "difference is larger than chance."
                ),
            )
            found = await run_in_thread(partial(api.runs, workspace.runs))
            names = [] if isinstance(found, SartorError) else [r.name for r in found if r.state == "finished"]
            if not names:
                with card(), empty(t("No finished run yet"), t("Train one first, and hold out some rows (val_size).")):
                    link(t("Runs"), "/runs", "btn main")
                return
            await run_in_thread(verdict.metric_names)
            await EvaluateView(workspace, jobs, t, names, run if run in names else names[0], against).draw()


@dataclass(slots=True)
class EvaluationChoice:
    """What to compare. With empty `against` and `datasets`: the run and its base, on the run's held-out rows."""

    run: str
    against: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    metric: str = "loss"
    metrics: list[str] = field(default_factory=list)
    """Empty: all of them."""
    max_new_tokens: int = 128
    margin: float | None = None
    """The smallest difference worth having in the primary metric; None: the default."""

    @property
    def targets(self) -> list[str]:
        """What `api.compare_several` compares; empty for a run and its base."""
        if not (self.against or self.datasets):
            return []
        return [f"runs/{self.run}", *(self.against or [comparison.BASE])]

    def overrides(self) -> list[str]:
        """For `api.compare`. They always set the metrics, so that a Python file in the run's settings is never used."""
        wanted = [*self.metrics, *([self.metric] if self.metric not in (*self.metrics, "loss") else [])]
        found = [
            f"primary_metric={self.metric}",
            f"max_new_tokens={self.max_new_tokens}",
            f"metrics={','.join(wanted) if self.metrics else 'all'}",
        ]
        found += [] if self.margin is None else [f"margin={self.margin!r}"]
        return found + ([f"eval_dataset={','.join(self.datasets)}"] if self.datasets else [])

    def to_json(self) -> dict[str, Any]:
        """For the job's arguments."""
        return {
            "against": self.against,
            "datasets": self.datasets,
            "metric": self.metric,
            "metrics": self.metrics,
            "max_new_tokens": self.max_new_tokens,
            "margin": self.margin,
        }

    def is_choice_of(self, job: Job) -> bool:
        """Whether a job compares the same models on the same rows; the metrics may differ."""
        chosen = job.arguments.get("choice") or {}
        same = [chosen.get(name) or [] for name in ("against", "datasets")] == [self.against, self.datasets]
        return job.run == self.run and job.kind in ("compare", "compare_many") and same


def last_choice(jobs: Jobs, run: str) -> EvaluationChoice:
    """The last comparison, so that a reload shows it."""
    for job in reversed(jobs.all()):
        if job.run == run and job.kind in ("compare", "compare_many"):
            return EvaluationChoice(run, **(job.arguments.get("choice") or {}))
    return EvaluationChoice(run)


class EvaluateView:
    """The comparison of one run."""

    def __init__(
        self, workspace: Workspace, jobs: Jobs, t: Translator, names: list[str], run: str, against: str | None
    ) -> None:
        self.workspace, self.jobs, self.t, self.names = workspace, jobs, t, names
        self.choice = last_choice(jobs, run)
        if against is not None:
            known = comparison.targets(workspace, run, names)
            self.choice = EvaluationChoice(run, [target for target in against.split(",") if target in known])
        self.seen: Any = None

    async def draw(self) -> None:
        with card():
            self.fields = ui.element("div").classes("flex flex-col gap-3 w-full")
            self._fields()
            with line():
                self.start = button(self.t("Compare"), self._start, "main")
                text(self.t("Choose the primary metric before you look at the answers."), "soft small")
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
                ui.select(self.names, value=choice.run, label=t("Run"), on_change=self._run).props("outlined dense")
                ui.select(
                    list(deciding),
                    value=choice.metric,
                    label=t("Primary metric"),
                    on_change=partial(self._set, "metric"),
                ).props("outlined dense")
                self._multiple("metrics", dict.fromkeys(metrics))
                ui.number(
                    "max_new_tokens",
                    value=choice.max_new_tokens,
                    min=1,
                    precision=0,
                    on_change=partial(self._set, "max_new_tokens"),
                ).props("outlined dense")
                margin = ui.number(
                    t("Margin"),
                    value=choice.margin,
                    min=0,
                    step=0.01,
                    on_change=partial(self._set, "margin"),
                )
                margin.props("outlined dense clearable")
                margin.props["hint"] = t(
                    "The smallest difference worth having. Default: 1% of the metric's range; of a loss 2% of the "
                    "base model's."
                )
            with ui.element("div").classes("pair"):
                self._multiple("against", self._targets())
                self._multiple("datasets", dict.fromkeys(self._datasets()))

    def _multiple(self, name: str, options: Mapping[str, str | None]) -> None:
        """A list with multiple selection."""
        title, hint = MULTIPLE[name]
        box = ui.select(
            {key: shown or key for key, shown in options.items()},
            value=getattr(self.choice, name),
            multiple=True,
            label=self.t(title),
            on_change=partial(self._set, name),
        )
        box.props("outlined dense use-chips options-dense").classes("w-full")
        box.props["hint"] = self.t(hint)

    def _targets(self) -> dict[str, str]:
        found = [*comparison.targets(self.workspace, self.choice.run, self.names), *self.choice.against]
        return {target: comparison.display_name(target, self.t) for target in found}

    def _datasets(self) -> list[str]:
        try:
            return list(read_registry(self.workspace.data).entries)
        except SartorError:
            return []

    async def _run(self, event: Any) -> None:
        self.choice, self.seen = last_choice(self.jobs, event.value), None
        self._fields()
        await self._redraw()

    async def _set(self, name: str, event: Any) -> None:
        value = event.value
        if name == "max_new_tokens":
            value = int(value or 128)
        elif name in MULTIPLE:
            value = value if value is not None else []
        setattr(self.choice, name, value)
        await self._redraw()

    async def _start(self) -> None:
        job, choice = self._job(), self.choice
        if job is None or job.state() not in ("waiting", "running"):
            overrides, saved = choice.overrides(), choice.to_json()
            if targets := choice.targets:
                out = comparison.output_folder(choice.run, targets, overrides)
                self.jobs.add("compare_many", choice.run, targets=targets, overrides=overrides, out=out, choice=saved)
            else:
                self.jobs.add("compare", choice.run, run=f"runs/{choice.run}", overrides=overrides, choice=saved)
        await self._redraw()

    def _job(self) -> Job | None:
        """The newest job of this choice."""
        return next((job for job in reversed(self.jobs.all()) if self.choice.is_choice_of(job)), None)

    async def _redraw(self) -> None:
        job = self._job()
        state = job.state() if job else None
        reported = (job.read("progress.json") or {}) if job else {}
        now = (
            (self.choice.run, *self.choice.targets),
            job and job.id,
            state,
            reported.get("done"),
            reported.get("total"),
        )
        if now == self.seen:
            return
        ended = self.seen is None or self.seen[2] != state or self.seen[:2] != now[:2]
        self.seen = now
        self._draw_progress(job, state, reported)
        if ended:
            await self._draw_outcome(job if state == "done" else None)

    def _draw_progress(self, job: Job | None, state: str | None, reported: Mapping[str, Any]) -> None:
        t = self.t
        self.progress.clear()
        with self.progress:
            if state in ("waiting", "running") and job:
                with line("spread"):
                    done, total = reported.get("done", 0), reported.get("total")
                    status = (
                        t("{done} of {total} answers", done=done, total=total)
                        if total
                        else t("Loading the model and computing losses…")
                    )
                    text(status if state == "running" else t("waiting"), "num")
                    button(t("Stop"), job.stop, "quiet danger")
                with ui.element("div").classes("meter"):
                    ui.element("div").style(f"width:{100 * done / total if total else 0:.0f}%")
            elif state == "failed" and job:
                show_error(t, job.error() or SartorError(job.log(2000)))

    async def _draw_outcome(self, done: Job | None) -> None:
        t, run = self.t, self.choice.run
        found: Any
        if self.choice.targets:
            found = await run_in_thread(partial(comparison.read, self.workspace, done)) if done else None
        else:
            found = await run_in_thread(partial(verdict.read, self.workspace, run, t.lang))
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
                    empty(
                        t("Not compared yet"),
                        t("Start the comparison above. It continues after you close this window."),
                    )
