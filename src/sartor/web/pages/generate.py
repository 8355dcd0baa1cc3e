"""The page `/generate`: questions from documents: settings, price first, progress, each pair beside its proof."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from sartor.base.errors import ConfigError, DataError, SartorError
from sartor.data.dataset_info import read_registry
from sartor.qa_generation.documents import READERS
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
    run_in_thread,
    show_error,
    text,
)
from sartor.web.endpoints import key_of
from sartor.web.generated_pairs import Pair, estimate, keep, read, save
from sartor.web.i18n import Words
from sartor.web.jobs import Job, Jobs
from sartor.web.run_monitor import duration
from sartor.web.workspace import Workspace, dataset_name, visible

EVERY_S = 0.7
AT_ONCE = 20


def add_to(desk: Workspace, jobs: Jobs) -> None:
    @ui.page("/generate", response_timeout=30)
    async def page(request: Request, name: str = "") -> None:
        with page_frame(request, "data", "") as t:
            heading(t("generate.title"), t("generate.lead"))
            await GenerateView(desk, jobs, t, name).draw()


@dataclass(slots=True)
class GenerateForm:
    """What a person chose; the arguments of `api.generate` but for the key itself."""

    documents: list[str] = field(default_factory=list)
    name: str = ""
    language: str = ""
    """Empty: that of the documents."""
    per_chunk: int = 2
    pairs: int = 0
    """Wanted in all; 0: as many as the passages give."""
    multi_turn: bool = False
    model: str = "smollm2-135m"
    remote: bool = False
    endpoint: str = ""
    far_model: str = ""
    key_env: str = ""
    price_in: float = 0.0
    price_out: float = 0.0
    max_cost: float = 0.0
    consent: bool = False

    def arguments(self, desk: Workspace) -> dict[str, Any]:
        """As the job wants them. Raises: ConfigError, DataError for what cannot be used or was not agreed to."""
        if not self.documents:
            raise DataError("No document is chosen.", "documents", "Bring a file, or choose one.")
        documents = [str(desk.resolve_inside(document)) for document in self.documents]
        found: dict[str, Any] = {
            "documents": documents,
            "name": self.name,
            "language": self.language or None,
            "per_chunk": self.per_chunk,
            "pairs": self.pairs or None,
            "multi_turn": self.multi_turn,
        }
        if not self.remote:
            if self.model not in desk.models():
                raise ConfigError("There is no such model.", self.model, "Choose one of the list.")
            return {**found, "model": self.model}
        if not self.consent:
            raise ConfigError("Nothing is sent: you have not agreed to it.", self.endpoint, "Tick the box first.")
        key_of(self.endpoint, self.key_env)
        return {
            **found,
            "model": self.far_model,
            "endpoint": self.endpoint,
            "key_env": self.key_env or None,
            "price_in": self.price_in,
            "price_out": self.price_out,
            "max_cost": self.max_cost or None,
        }


class GenerateView:
    """Documents on their way to a dataset. What runs, and what came of it, is read from the newest job of the name."""

    def __init__(self, desk: Workspace, jobs: Jobs, t: Words, name: str) -> None:
        self.desk, self.jobs, self.t = desk, jobs, t
        last = next((job.run for job in reversed(jobs.all()) if job.kind == "generate"), "")
        self.asked = GenerateForm(name=name or last)
        self.seen: Any = None
        self.pairs: list[Pair] = []
        self.shown = AT_ONCE

    async def draw(self) -> None:
        t = self.t
        with card():
            text(t("generate.documents"), tag="h2")
            with ui.element("label").classes("drop"):
                ui.element("input").props(
                    f'type=file multiple data-upload accept="{",".join(READERS)}" '
                    f'aria-label="{t("generate.documents")}"'
                )
                text(t("data.drop"), tag="b")
                text(t("generate.kinds"), "small")
                ui.element("div").props("id=upload-progress aria-live=polite").classes("num")
            self.files = ui.select(
                self._there(), multiple=True, value=[], label=t("generate.chosen"), on_change=self._chosen
            )
            self.files.props("outlined dense use-chips").classes("w-full")
            self._settings()
            with line():
                button(t("generate.price"), self._estimate)
                button(t("generate.start"), self._start, "main")
            self.said = ui.element("div").classes("w-full")
            self.progress = ui.element("div").classes("w-full")
        self.out = ui.element("div").classes("flex flex-col gap-5 w-full")
        ui.on("sartor-uploaded", self._uploaded)
        await self._redraw()
        ui.timer(EVERY_S, self._redraw)

    def _there(self) -> list[str]:
        """The documents in the folder; runs and what is hidden are left out."""
        found = []
        for path in sorted(self.desk.folder.rglob("*")):
            parts = path.relative_to(self.desk.folder).parts
            hidden = any(part.startswith(".") for part in parts) or parts[0] in ("runs", "exports", "data")
            if not hidden and len(parts) <= 4 and path.suffix.lower() in READERS and path.is_file():
                found.append(path.relative_to(self.desk.folder).as_posix())
        return found[:500]

    def _settings(self) -> None:
        t = self.t
        with ui.element("div").classes("fields"):
            self.name = ui.input(t("data.name"), value=self.asked.name).props("outlined dense")
            self.name.on_value_change(partial(self._set, "name"))
            languages = {"": t("generate.as_documents"), "en": "English", "zh": "中文"}
            ui.select(
                languages,
                value=self.asked.language,
                label=t("generate.language"),
                on_change=partial(self._set, "language"),
            ).props("outlined dense")
            ui.number(
                t("generate.per_chunk"), value=2, min=1, max=20, precision=0, on_change=partial(self._set, "per_chunk")
            ).props("outlined dense")
            ui.number(t("generate.pairs"), min=1, precision=0, on_change=partial(self._set, "pairs")).props(
                "outlined dense"
            )
            ui.select(
                {False: t("generate.single"), True: t("generate.multi")},
                value=False,
                label=t("generate.kind"),
                on_change=partial(self._set, "multi_turn"),
            ).props("outlined dense")
            ui.select(
                {False: t("generate.here"), True: t("chat.endpoint")},
                value=False,
                label=t("generate.who"),
                on_change=self._where,
            ).props("outlined dense")
        self.who = ui.element("div").classes("flex flex-col gap-2 w-full")
        self._asks()

    def _asks(self) -> None:
        """The model in this machine, or an endpoint with its prices and the consent."""
        t, asked = self.t, self.asked
        self.who.clear()
        with self.who:
            with ui.element("div").classes("fields"):
                if not asked.remote:
                    models = self.desk.models()
                    ui.select(
                        models,
                        value=asked.model,
                        label=t("chat.model"),
                        on_change=partial(self._set, "model"),
                    ).props("outlined dense")
                    return
                for name, label in (("endpoint", "url"), ("far_model", "model"), ("key_env", "key_env")):
                    ui.input(
                        t(f"chat.remote_{label}"), value=getattr(asked, name), on_change=partial(self._set, name)
                    ).props("outlined dense")
                for name in ("price_in", "price_out", "max_cost"):
                    ui.number(
                        t(f"generate.{name}"),
                        value=getattr(asked, name) or None,
                        min=0,
                        on_change=partial(self._set, name),
                    ).props("outlined dense")
            agreed = ui.checkbox(t("generate.consent"), value=asked.consent).props("dense")
            agreed.on_value_change(partial(self._set, "consent"))

    def _where(self, event: Any) -> None:
        self.asked.remote = bool(event.value)
        self._asks()

    def _set(self, name: str, event: Any) -> None:
        before = getattr(self.asked, name)
        setattr(self.asked, name, type(before)(event.value if event.value is not None else type(before)()))

    def _chosen(self, event: Any) -> None:
        self.asked.documents = list(event.value or ())
        if self.asked.documents and not self.asked.name:
            self.name.value = self._free_name(dataset_name(self.asked.documents[0]))

    def _free_name(self, stem: str) -> str:
        taken: Mapping[str, Any] = {}
        with contextlib.suppress(SartorError):
            taken = read_registry(self.desk.data).entries
        return next(name for n in range(1, 10_000) if (name := stem if n == 1 else f"{stem}-{n}") not in taken)

    def _uploaded(self, event: Any) -> None:
        answer = event.args if isinstance(event.args, dict) else {}
        if "file" in answer:
            self.files.set_options(self._there(), value=[*self.asked.documents, str(answer["file"])])
            return
        self._tell(DataError(str(answer.get("error", "")), answer.get("where", ""), answer.get("fix", "")))

    def _tell(self, error: SartorError | None) -> None:
        self.said.clear()
        if error:
            with self.said:
                show_error(self.t, error)

    async def _estimate(self) -> None:
        """How much would be asked, at which price, before anything is."""
        t = self.t
        found = await run_in_thread(lambda: estimate(self.asked.arguments(self.desk)))
        self._tell(found if isinstance(found, SartorError) else None)
        if isinstance(found, SartorError):
            return
        with self.said:
            pairs: list[tuple[str, object]] = [
                (t("generate.passages"), number(found["passages"])),
                (t("generate.calls"), number(found["calls"])),
                (t("generate.tokens_in"), number(found["max_tokens_in"])),
                (t("generate.tokens_out"), number(found["max_tokens_out"])),
                (t("train.takes"), "≈ " + duration(found["seconds"])),
            ]
            if self.asked.remote:
                pairs += [
                    (t("generate.money"), f"{found['cost']:.2f}"),
                    (t("generate.most_money"), f"{found['max_cost']:.2f}"),
                ]
            facts(pairs)
            if found["reused"]:
                text(t("generate.reused", count=found["reused"]), "soft small")

    async def _start(self) -> None:
        job = self._job()
        if job and job.state() in ("waiting", "running"):
            return
        found = await run_in_thread(lambda: self.asked.arguments(self.desk))
        if not isinstance(found, SartorError) and self.asked.name:
            self._tell(None)
            self.jobs.add("generate", self.asked.name, **found)
        else:
            self._tell(found if isinstance(found, SartorError) else DataError(self.t("generate.no_name"), "", ""))
        await self._redraw()

    def _job(self) -> Job | None:
        return self.jobs.of(self.asked.name, "generate") if self.asked.name else None

    async def _redraw(self) -> None:
        job = self._job()
        state = job.state() if job else None
        told = (job.read("progress.json") or {}) if job else {}
        now = (job and job.id, state, told.get("done"))
        if now == self.seen:
            return
        ended = self.seen is None or self.seen[:2] != now[:2]
        self.seen = now
        self._draw_progress(job, state, told)
        if ended:
            self.pairs = read(job) if job and state == "done" else []
            self._draw_pairs(job if state == "done" else None)

    def _draw_progress(self, job: Job | None, state: str | None, told: Mapping[str, Any]) -> None:
        t = self.t
        self.progress.clear()
        with self.progress:
            if job and state in ("waiting", "running"):
                done, total = told.get("done", 0), told.get("total")
                with line("spread"):
                    said = t("generate.progress", done=done, total=total) if total else t("runs.preparing")
                    text(said if state == "running" else t("state.waiting"), "num")
                    button(t("train.stop"), job.stop, "quiet danger")
                with ui.element("div").classes("meter"):
                    ui.element("div").style(f"width:{100 * done / total if total else 0:.0f}%")
                self._so_far(job, total - done if total else None, total)
            elif job and state in ("failed", "stopped"):
                ended = job.read("ended.json") or {"what": job.log(2000) or t("state.stopped")}
                show_error(t, SartorError.from_json(ended))
                text(t("generate.again"), "soft small")

    def _so_far(self, job: Job, left: int | None, total: int | None) -> None:
        """The time that is left by what was measured, and the newest pair."""
        t, made = self.t, read(job)
        expected = job.read("estimate.json") or {}
        parts = [t("generate.so_far", count=len(made))] if made else []
        if left is not None and total and expected.get("basis") == "measured":
            parts.append(t("generate.left", time=duration(expected["seconds"] * left / total)))
        text(" · ".join(parts), "soft small num")
        if made:
            text(made[-1].turns[0]["question"], "who")
            ui.html(marked(made[-1].passage, made[-1].spans), sanitize=False).classes("say assistant small source")

    def _draw_pairs(self, job: Job | None) -> None:
        t = self.t
        self.out.clear()
        if job is None:
            return
        told = (job.read("ended.json") or {}).get("result", {})
        with self.out:
            if not self.pairs:
                with card():
                    empty(t("generate.none"), t("generate.none_next"))
            with card():
                with line("spread"):
                    self.count = text("", tag="h2")
                    button(t("generate.register"), partial(self._register, job), "main")
                for reason, count in told.get("rejected", {}).items():
                    text(f"{count} × {t.get(f'generate.refused_{reason}', reason)}", "soft small num")
                if told.get("stopped") in ("requested", "cap", "endpoint"):
                    text(t(f"generate.stopped_{told['stopped']}"), "notice warn-n small")
                if told.get("spent"):
                    text(t("generate.spent", money=f"{told['spent']:.4f}"), "soft small num")
                if told.get("failed"):
                    text(t("generate.failed", count=told["failed"]), "notice warn-n small")
                self.kept = ui.element("div")
                self.list = ui.element("div").classes("flex flex-col gap-4 w-full")
                self._fill(job)

    def _fill(self, job: Job) -> None:
        self.list.clear()
        self._counted()
        with self.list:
            for pair in self.pairs[: self.shown]:
                self._pair(job, pair)
            if self.shown < len(self.pairs):
                button(self.t("dataset.more", count=len(self.pairs) - self.shown), partial(self._more, job))

    def _more(self, job: Job) -> None:
        self.shown += AT_ONCE
        self._fill(job)

    def _counted(self) -> None:
        taken = sum(pair.accepted for pair in self.pairs)
        self.count.set_content(self.t("generate.taken", count=taken, all=len(self.pairs)))

    def _pair(self, job: Job, pair: Pair) -> None:
        """Question and answer to change, beside the passage with the quote marked; the box keeps or drops it."""
        t = self.t
        with ui.element("article").classes("answer") as shown:
            with line("spread"):
                box = ui.checkbox(t("generate.take"), value=pair.accepted).props("dense")
                text(" · ".join(filter(None, (pair.document, pair.section))), "soft small", tag="span")
            with ui.element("div").classes("pair"):
                with ui.element("div").classes("flex flex-col gap-2"):
                    for turn in pair.turns:
                        for name in ("question", "answer"):
                            edit = ui.textarea(t(f"data.field_{name}"), value=turn[name])
                            edit.props("outlined autogrow dense debounce=300").classes("w-full")
                            edit.on_value_change(partial(self._change, job, turn, name))
                ui.html(marked(pair.passage, pair.spans), sanitize=False).classes("say assistant small source")

        def decide(event: Any) -> None:
            pair.accepted = bool(event.value)
            save(job, self.pairs)
            shown.classes(toggle="dim")
            self._counted()

        box.on_value_change(decide)
        if not pair.accepted:
            shown.classes("dim")

    def _change(self, job: Job, turn: dict[str, str], name: str, event: Any) -> None:
        turn[name] = event.value or ""
        save(job, self.pairs)

    async def _register(self, job: Job) -> None:
        """Write what is taken as a dataset; what a person has changed counts."""
        outcome = await run_in_thread(partial(keep, self.pairs, job.run, self.desk.data))
        self.kept.clear()
        with self.kept:
            if isinstance(outcome, SartorError):
                show_error(self.t, outcome)
                return
            with ui.element("div").classes("notice good-n row-line spread"):
                text(self.t("generate.registered", name=job.run, count=outcome))
                with line():
                    link(self.t("data.look"), f"/dataset/{quote(job.run)}", "btn main")
                    link(self.t("data.train_on"), f"/train?dataset={quote(job.run)}")


def marked(passage: str, spans: Sequence[tuple[int, int]]) -> str:
    """The passage as HTML with the quotes marked; quotes that overlap are one mark."""
    shown, at = [], 0
    for start, stop in sorted(spans):
        start = max(start, at)
        if stop > start:
            shown += [_text(passage[at:start]), f"<mark>{_text(passage[start:stop])}</mark>"]
            at = stop
    return "".join([*shown, _text(passage[at:])])


def _text(words: str) -> str:
    return html.escape(visible(words))
