"""The page `/generate`: question-answer pairs from documents, with a cost estimate and a review of every pair."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import Request
from nicegui import ui

from sartor.base.errors import ConfigError, DataError, SartorError
from sartor.base.i18n import tr
from sartor.data.dataset_info import read_registry
from sartor.qa_generation.documents import READERS
from sartor.web.components import (
    button,
    card,
    facts,
    heading,
    line,
    number,
    page_frame,
    run_in_thread,
    show_error,
    text,
)
from sartor.web.endpoints import key_of
from sartor.web.generated_pairs import read
from sartor.web.i18n import Translator
from sartor.web.jobs import Job, Jobs
from sartor.web.pages.pair_review import PairReview, marked
from sartor.web.reader import Reader
from sartor.web.run_monitor import duration
from sartor.web.value_names import ENDPOINT_FIELDS, STATES
from sartor.web.workspace import Workspace, dataset_name

EVERY_S = 0.7
PRICES = {
    "price_in": tr("Price per 1M input tokens"),
    "price_out": tr("Price per 1M output tokens"),
    "max_cost": tr("Spending limit"),
}


def add_to(workspace: Workspace, jobs: Jobs, reader: Reader) -> None:
    @ui.page("/generate", response_timeout=30)
    async def page(request: Request, name: str = "") -> None:
        with page_frame(request, "data", "") as t:
            heading(
                t("Questions from documents"),
                t(
                    "A model reads your documents passage by passage and writes questions with answers. Each "
                    "answer must quote its passage verbatim; you accept or reject every pair."
                ),
            )
            await GenerateView(workspace, jobs, reader, t, name).draw()


@dataclass(slots=True)
class GenerateForm:
    """The form's values: the arguments of `api.generate`, except the API key itself."""

    documents: list[str] = field(default_factory=list)
    name: str = ""
    language: str = ""
    """Empty: the language of the documents."""
    per_chunk: int = 2
    pairs: int = 0
    """Total; 0: as many as the passages give."""
    multi_turn: bool = False
    model: str = "smollm2-135m"
    remote: bool = False
    endpoint: str = ""
    remote_model: str = ""
    key_env: str = ""
    price_in: float = 0.0
    price_out: float = 0.0
    max_cost: float = 0.0
    consent: bool = False

    def arguments(self, workspace: Workspace) -> dict[str, Any]:
        """For the job. Raises: ConfigError, DataError for invalid values or a missing consent."""
        if not self.documents:
            raise DataError("No document is chosen.", "documents", "Upload a file, or choose one.")
        documents = [str(workspace.resolve_inside(document)) for document in self.documents]
        found: dict[str, Any] = {
            "documents": documents,
            "name": self.name,
            "language": self.language or None,
            "per_chunk": self.per_chunk,
            "pairs": self.pairs or None,
            "multi_turn": self.multi_turn,
        }
        if not self.remote:
            if self.model not in workspace.models():
                raise ConfigError("Unknown model.", self.model, "Choose one from the list.")
            return {**found, "model": self.model}
        if not self.consent:
            raise ConfigError("Sending to this address needs your consent.", self.endpoint, "Check the consent box.")
        key_of(self.endpoint, self.key_env)
        return {
            **found,
            "model": self.remote_model,
            "endpoint": self.endpoint,
            "key_env": self.key_env or None,
            "price_in": self.price_in,
            "price_out": self.price_out,
            "max_cost": self.max_cost or None,
        }


class GenerateView:
    """The form, and the progress and result of the newest job for the dataset name."""

    def __init__(self, workspace: Workspace, jobs: Jobs, reader: Reader, t: Translator, name: str) -> None:
        self.workspace, self.jobs, self.reader, self.t = workspace, jobs, reader, t
        last = next((job.run for job in reversed(jobs.all()) if job.kind == "generate"), "")
        self.form = GenerateForm(name=name or last)
        self.seen: Any = None

    async def draw(self) -> None:
        t = self.t
        with card():
            text(t("Add documents"), tag="h2")
            with ui.element("label").classes("drop"):
                ui.element("input").props(
                    f'type=file multiple data-upload accept="{",".join(READERS)}" aria-label="{t("Add documents")}"'
                )
                text(t("Drop a file here, or click to choose one"), tag="b")
                text(t("Text, Markdown, HTML, PDF, Word or EPUB, in any encoding"), "small")
                ui.element("div").props("id=upload-progress aria-live=polite").classes("num")
            self.files = ui.select(
                self._documents(), multiple=True, value=[], label=t("Documents"), on_change=self._chosen
            )
            self.files.props("outlined dense use-chips").classes("w-full")
            self._settings()
            with line():
                button(t("Estimate cost"), self._estimate)
                button(t("Generate pairs"), self._start, "main")
            self.message = ui.element("div").classes("w-full")
            self.progress = ui.element("div").classes("w-full")
        self.out = ui.element("div").classes("flex flex-col gap-5 w-full")
        ui.on("sartor-uploaded", self._uploaded)
        await self._redraw()
        ui.timer(EVERY_S, self._redraw)

    def _documents(self) -> list[str]:
        """The documents in the folder, without runs and hidden files."""
        found = []
        for path in sorted(self.workspace.folder.rglob("*")):
            parts = path.relative_to(self.workspace.folder).parts
            hidden = any(part.startswith(".") for part in parts) or parts[0] in ("runs", "exports", "data")
            if not hidden and len(parts) <= 4 and path.suffix.lower() in READERS and path.is_file():
                found.append(path.relative_to(self.workspace.folder).as_posix())
        return found[:500]

    def _settings(self) -> None:
        t = self.t
        with ui.element("div").classes("fields"):
            self.name = ui.input(t("Dataset name"), value=self.form.name).props("outlined dense")
            self.name.on_value_change(partial(self._set, "name"))
            languages = {"": t("same as the documents"), "en": "English", "zh": "中文"}
            ui.select(
                languages,
                value=self.form.language,
                label=t("Question language"),
                on_change=partial(self._set, "language"),
            ).props("outlined dense")
            ui.number(
                t("Pairs per passage"), value=2, min=1, max=20, precision=0, on_change=partial(self._set, "per_chunk")
            ).props("outlined dense")
            ui.number(t("Total pairs"), min=1, precision=0, on_change=partial(self._set, "pairs")).props(
                "outlined dense"
            )
            ui.select(
                {False: t("single question and answer"), True: t("multi-turn conversation")},
                value=False,
                label=t("Type"),
                on_change=partial(self._set, "multi_turn"),
            ).props("outlined dense")
            ui.select(
                {False: t("local model"), True: t("Endpoint (OpenAI-compatible)")},
                value=False,
                label=t("Generated by"),
                on_change=self._where,
            ).props("outlined dense")
        self.who = ui.element("div").classes("flex flex-col gap-2 w-full")
        self._model_fields()

    def _model_fields(self) -> None:
        """A local model, or an endpoint with prices and consent."""
        t, form = self.t, self.form
        self.who.clear()
        with self.who:
            with ui.element("div").classes("fields"):
                if not form.remote:
                    models = self.workspace.models()
                    ui.select(
                        models,
                        value=form.model,
                        label=t("Model"),
                        on_change=partial(self._set, "model"),
                    ).props("outlined dense")
                    return
                for name, label in (("endpoint", "url"), ("remote_model", "model"), ("key_env", "key_env")):
                    ui.input(
                        t(ENDPOINT_FIELDS[label]), value=getattr(form, name), on_change=partial(self._set, name)
                    ).props("outlined dense")
                for name, title in PRICES.items():
                    ui.number(
                        t(title),
                        value=getattr(form, name) or None,
                        min=0,
                        on_change=partial(self._set, name),
                    ).props("outlined dense")
            agreed = ui.checkbox(t("Send the documents' text to this address"), value=form.consent).props("dense")
            agreed.on_value_change(partial(self._set, "consent"))

    def _where(self, event: Any) -> None:
        self.form.remote = bool(event.value)
        self._model_fields()

    def _set(self, name: str, event: Any) -> None:
        before = getattr(self.form, name)
        setattr(self.form, name, type(before)(event.value if event.value is not None else type(before)()))

    def _chosen(self, event: Any) -> None:
        self.form.documents = list(event.value or ())
        if self.form.documents and not self.form.name:
            self.name.value = self._free_name(dataset_name(self.form.documents[0]))

    def _free_name(self, stem: str) -> str:
        taken: Mapping[str, Any] = {}
        with contextlib.suppress(SartorError):
            taken = read_registry(self.workspace.data).entries
        return next(name for n in range(1, 10_000) if (name := stem if n == 1 else f"{stem}-{n}") not in taken)

    def _uploaded(self, event: Any) -> None:
        answer = event.args if isinstance(event.args, dict) else {}
        if "file" in answer:
            self.files.set_options(self._documents(), value=[*self.form.documents, str(answer["file"])])
            return
        self._show_error(DataError(str(answer.get("error", "")), answer.get("where", ""), answer.get("fix", "")))

    def _show_error(self, error: SartorError | None) -> None:
        self.message.clear()
        if error:
            with self.message:
                show_error(self.t, error)

    async def _estimate(self) -> None:
        """Show the number of requests and the cost, without sending anything."""
        t = self.t
        found = await run_in_thread(
            lambda: self.reader.call("estimate", "documents", arguments=self.form.arguments(self.workspace))
        )
        self._show_error(found if isinstance(found, SartorError) else None)
        if isinstance(found, SartorError):
            return
        with self.message:
            pairs: list[tuple[str, object]] = [
                (t("passages"), number(found["passages"])),
                (t("requests"), number(found["calls"])),
                (t("requests (max)"), number(found["max_calls"])),
                (t("input tokens (max)"), number(found["max_tokens_in"])),
                (t("output tokens (max)"), number(found["max_tokens_out"])),
                (t("duration"), "≈ " + duration(found["seconds"])),
            ]
            if self.form.remote:
                pairs += [
                    (t("estimated cost"), f"{found['cost']:.2f}"),
                    (t("cost (max)"), f"{found['max_cost']:.2f}"),
                ]
            facts(pairs)
            if found["reused"]:
                reused = t.plural(
                    "{count} answer is cached and costs nothing.",
                    "{count} answers are cached and cost nothing.",
                    count=found["reused"],
                )
                text(reused, "soft small")

    async def _start(self) -> None:
        if self._is_active():
            return
        found = await run_in_thread(lambda: self.form.arguments(self.workspace))
        if not isinstance(found, SartorError) and self.form.name:
            self._show_error(None)
            if not self._is_active():  # a second click, or another window, may have been faster
                self.jobs.add("generate", self.form.name, **found)
        else:
            self._show_error(found if isinstance(found, SartorError) else DataError("Enter a dataset name."))
        await self._redraw()

    def _is_active(self) -> bool:
        job = self._job()
        return job is not None and job.state() in ("waiting", "running")

    def _job(self) -> Job | None:
        return self.jobs.of(self.form.name, "generate") if self.form.name else None

    async def _redraw(self) -> None:
        job = self._job()
        state = job.state() if job else None
        progress = (job.read("progress.json") or {}) if job else {}
        now = (job and job.id, state, progress.get("done"))
        if now == self.seen:
            return
        ended = self.seen is None or self.seen[:2] != now[:2]
        self.seen = now
        self._draw_progress(job, state, progress)
        if ended:
            self.out.clear()
            if job and state == "done":
                with self.out:
                    PairReview(self.workspace, self.t, job).draw()

    def _draw_progress(self, job: Job | None, state: str | None, progress: Mapping[str, Any]) -> None:
        t = self.t
        self.progress.clear()
        with self.progress:
            if job and state in ("waiting", "running"):
                done, total = progress.get("done", 0), progress.get("total")
                with line("spread"):
                    status = (
                        t("{done} of {total} passages", done=done, total=total)
                        if total
                        else t("Reading data and loading the model…")
                    )
                    text(status if state == "running" else t("waiting"), "num")
                    button(t("Stop"), job.stop, "quiet danger")
                with ui.element("div").classes("meter"):
                    ui.element("div").style(f"width:{100 * done / total if total else 0:.0f}%")
                self._so_far(job, total - done if total else None, total)
            elif job and state in ("failed", "stopped"):
                show_error(t, job.error() or SartorError(job.log(2000) or STATES["stopped"]))
                text(t("Answers so far are kept; starting again continues from them."), "soft small")

    def _so_far(self, job: Job, left: int | None, total: int | None) -> None:
        """The remaining time, if it was measured, and the newest pair."""
        t, made = self.t, read(job)
        expected = job.read("estimate.json") or {}
        parts = [t.plural("{count} pair so far", "{count} pairs so far", count=len(made))] if made else []
        if left is not None and total and expected.get("basis") == "measured":
            parts.append(t("{time} left", time=duration(expected["seconds"] * left / total)))
        text(" · ".join(parts), "soft small num")
        if made:
            text(made[-1].turns[0]["question"], "who")
            ui.html(marked(made[-1].passage, made[-1].spans), sanitize=False).classes("say assistant small source")
