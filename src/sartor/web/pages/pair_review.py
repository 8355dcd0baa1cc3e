"""The review of generated pairs: each beside its passage, to edit, accept or refuse; and their dataset."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from sartor.base.errors import SartorError
from sartor.base.i18n import tr
from sartor.web.components import button, card, empty, line, link, run_in_thread, show_error, text
from sartor.web.generated_pairs import Pair, keep, read, save
from sartor.web.i18n import Translator
from sartor.web.jobs import Job
from sartor.web.value_names import FIELDS
from sartor.web.workspace import Workspace, visible

AT_ONCE = 20
REJECTED = {
    "no-json": tr("no JSON in the answer"),
    "incomplete": tr("missing question, answer or quote"),
    "quote-not-found": tr("quote not found in the passage"),
    "near-duplicate": tr("near-duplicate question"),
    "not-grounded": tr("answer not grounded in the passage"),
    "too-few-turns": tr("too few turns"),
}
STOPPED = {
    "requested": tr("Stopped on request. The results so far are kept."),
    "cap": tr("Spending limit reached. The results so far are kept."),
    "endpoint": tr("The endpoint failed repeatedly. The results so far are kept."),
}
"""Why a job ended early."""


class PairReview:
    """The pairs that a finished job made."""

    def __init__(self, workspace: Workspace, t: Translator, job: Job) -> None:
        self.workspace, self.t, self.job = workspace, t, job
        self.pairs: list[Pair] = read(job)
        self.shown = AT_ONCE

    def draw(self) -> None:
        t = self.t
        result = (self.job.read("ended.json") or {}).get("result", {})
        if not self.pairs:
            with card():
                empty(
                    t("No usable pairs"),
                    t("A larger model or fewer pairs per passage may help. The reasons are listed below."),
                )
        with card():
            with line("spread"):
                self.count = text("", tag="h2")
                button(t("Save as dataset"), self._register, "main")
            for reason, count in result.get("rejected", {}).items():
                text(f"{count} × {t.lookup(REJECTED, reason)}", "soft small num")
            if result.get("stopped") in STOPPED:
                text(t(STOPPED[result["stopped"]]), "notice warn-n small")
            if result.get("spent"):
                text(t("Cost: {money}", money=f"{result['spent']:.4f}"), "soft small num")
            if result.get("failed"):
                failed = t.plural(
                    "{count} passage got no answer. Start again to retry it.",
                    "{count} passages got no answer. Start again to retry them.",
                    count=result["failed"],
                )
                text(failed, "notice warn-n small")
            self.saved = ui.element("div")
            self.list = ui.element("div").classes("flex flex-col gap-4 w-full")
            self._fill()

    def _fill(self) -> None:
        self.list.clear()
        self._update_count()
        with self.list:
            for pair in self.pairs[: self.shown]:
                self._pair(pair)
            if self.shown < len(self.pairs):
                button(self.t("and {count} more", count=len(self.pairs) - self.shown), self._more)

    def _more(self) -> None:
        self.shown += AT_ONCE
        self._fill()

    def _update_count(self) -> None:
        taken = sum(pair.accepted for pair in self.pairs)
        self.count.set_content(self.t("{count} of {all} pairs accepted", count=taken, all=len(self.pairs)))

    def _pair(self, pair: Pair) -> None:
        """Question and answer to edit, next to the passage with the quote marked, and a box to accept the pair."""
        t = self.t
        with ui.element("article").classes("answer") as shown:
            with line("spread"):
                box = ui.checkbox(t("Accept"), value=pair.accepted).props("dense")
                text(" · ".join(filter(None, (pair.document, pair.section))), "soft small", tag="span")
            with ui.element("div").classes("pair"):
                with ui.element("div").classes("flex flex-col gap-2"):
                    for turn in pair.turns:
                        for name in ("question", "answer"):
                            edit = ui.textarea(t(FIELDS[name]), value=turn[name])
                            edit.props("outlined autogrow dense debounce=300").classes("w-full")
                            edit.on_value_change(partial(self._change, turn, name))
                ui.html(marked(pair.passage, pair.spans), sanitize=False).classes("say assistant small source")

        def decide(event: Any) -> None:
            pair.accepted = bool(event.value)
            save(self.job, self.pairs)
            shown.classes(toggle="dim")
            self._update_count()

        box.on_value_change(decide)
        if not pair.accepted:
            shown.classes("dim")

    def _change(self, turn: dict[str, str], name: str, event: Any) -> None:
        turn[name] = event.value or ""
        save(self.job, self.pairs)

    async def _register(self) -> None:
        """Save the accepted pairs, with their edits, as a dataset."""
        outcome = await run_in_thread(partial(keep, self.pairs, self.job.run, self.workspace.data))
        self.saved.clear()
        with self.saved:
            if isinstance(outcome, SartorError):
                show_error(self.t, outcome)
                return
            with ui.element("div").classes("notice good-n row-line spread"):
                text(
                    self.t.plural(
                        "Saved the dataset {name} with {count} pair.",
                        "Saved the dataset {name} with {count} pairs.",
                        name=self.job.run,
                        count=outcome,
                    )
                )
                with line():
                    link(self.t("View rows"), f"/dataset/{quote(self.job.run)}", "btn main")
                    link(self.t("Train on it"), f"/train?dataset={quote(self.job.run)}")


def marked(passage: str, spans: Sequence[tuple[int, int]]) -> str:
    """The passage as escaped HTML with the quotes marked; overlapping quotes become one mark."""
    shown, at = [], 0
    for start, stop in sorted(spans):
        start = max(start, at)
        if stop > start:
            shown += [_text(passage[at:start]), f"<mark>{_text(passage[start:stop])}</mark>"]
            at = stop
    return "".join([*shown, _text(passage[at:])])


def _text(words: str) -> str:
    return html.escape(visible(words))
