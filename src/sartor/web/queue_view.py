"""The queue of jobs as the pages `/train` and `/runs` show it."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from sartor.base.i18n import Text, tr
from sartor.web.components import button, card, link, pill, table
from sartor.web.i18n import Translator
from sartor.web.jobs import Job, Jobs, Kind
from sartor.web.value_names import STATES

KINDS: dict[Kind, Text] = {
    "train": tr("training"),
    "estimate": tr("estimate"),
    "compare": tr("comparison"),
    "compare_many": tr("multi-model comparison"),
    "export": tr("export"),
    "generate": tr("question generation"),
}


def page_of(job: Job) -> str:
    """The address of the page that shows a job."""
    pages = {
        "generate": "/generate?name=",
        "estimate": "/train?run=",
        "compare": "/evaluate?run=",
        "compare_many": "/evaluate?run=",
        "export": "/export?run=",
    }
    return pages.get(job.kind, "/runs/") + quote(job.run, safe="")


class QueueView:
    """A table of the running and waiting jobs; hidden when there are none."""

    def __init__(self, jobs: Jobs, t: Translator, place: ui.element) -> None:
        self.jobs, self.t, self.place = jobs, t, place
        self.before: Any = None

    def draw(self) -> None:
        self._redraw()
        ui.timer(2.0, self._redraw)

    def _redraw(self) -> None:
        now = [(job, state) for job in self.jobs.all() if (state := job.state()) in ("waiting", "running")]
        if [(job.id, state) for job, state in now] == self.before:
            return
        self.before = [(job.id, state) for job, state in now]
        self.place.clear()
        if not now:
            return
        t = self.t
        with self.place, card("flush"):
            rows: list[list[Any]] = [
                [
                    partial(link, job.run, page_of(job), ""),
                    t(KINDS[job.kind]),
                    partial(pill, t(STATES[state]), state),
                    partial(button, t("Stop"), partial(self._stop, job), "quiet danger"),
                ]
                for job, state in now
            ]
            table([(t("Queue"), ""), (t("Job"), ""), (t("State"), ""), ("", "act")], rows)

    def _stop(self, job: Job) -> None:
        job.stop()
        self._redraw()
