"""The page `/home`: a run exported in the form another program wants, proved, downloaded, with the lines to use it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from nicegui import app, ui

from sartor import api
from sartor.base.errors import SartorError
from sartor.web.components import (
    button,
    card,
    empty,
    heading,
    line,
    link,
    page_frame,
    run_in_thread,
    show_error,
    size,
    table,
    text,
)
from sartor.web.i18n import Words
from sartor.web.jobs import Job, Jobs
from sartor.web.workspace import Workspace
from sartor.web.zip_stream import zipped

EVERY_S = 1.0
FORMS = ("merged", "adapter", "gguf", "ollama")
NUMBERS = {
    "merged": ("float16", "bfloat16", "float32"),
    "adapter": (),
    "gguf": ("f16", "q8_0", "q4_0"),
    "ollama": ("f16", "q8_0", "q4_0"),
}
"""The number formats of a form, the first as it opens. float16 rounds eight times finer than bfloat16."""


def add_to(desk: Workspace, jobs: Jobs) -> None:
    exports = desk.folder / "exports"

    @ui.page("/home", response_timeout=30)
    async def page(request: Request, run: str = "") -> None:
        with page_frame(request, "home") as t:
            heading(t("home.title"), t("home.lead"))
            found = await run_in_thread(partial(api.runs, desk.runs))
            names = [] if isinstance(found, SartorError) else [r.name for r in found if r.state == "finished"]
            if not names:
                with card(), empty(t("evaluate.none"), t("home.none_next")):
                    link(t("nav.train"), "/train", "btn main")
                return
            ExportView(jobs, t, names, run if run in names else names[0], exports).draw()

    @app.get("/exports/{path:path}")
    def file(path: str) -> Response:
        """A file of an export, as a download."""
        try:
            found = desk.resolve_inside(path, exports)
        except SartorError:
            return PlainTextResponse("Not here.", 404)
        if not found.is_file():
            return PlainTextResponse("Not here.", 404)
        return FileResponse(found, filename=found.name)

    @app.get("/exports-zip/{name}")
    def together(name: str) -> Response:
        """All files of an export as one download."""
        try:
            found = desk.resolve_inside(name, exports)
        except SartorError:
            return PlainTextResponse("Not here.", 404)
        if found.parent != exports.resolve() or not found.is_dir():
            return PlainTextResponse("Not here.", 404)
        said = {"content-disposition": f"attachment; filename*=UTF-8''{quote(found.name)}.zip"}
        return StreamingResponse(zipped(found), media_type="application/zip", headers=said)


class ExportView:
    """One run on its way out."""

    def __init__(self, jobs: Jobs, t: Words, names: list[str], run: str, exports: Path) -> None:
        self.jobs, self.t, self.names, self.run, self.exports = jobs, t, names, run, exports
        self.form, self.numbers = "merged", "float16"
        self.seen: Any = None

    def draw(self) -> None:
        t = self.t
        with ui.element("div").classes("two"):
            with card():
                with ui.element("div").classes("fields"):
                    ui.select(
                        self.names, value=self.run, label=t("runs.run"), on_change=partial(self._set, "run")
                    ).props("outlined dense")
                    forms = {form: t(f"home.form_{form}") for form in FORMS}
                    ui.select(forms, value=self.form, label=t("home.form"), on_change=partial(self._set, "form")).props(
                        "outlined dense"
                    )
                    self.quants = ui.select(
                        list(NUMBERS["merged"]),
                        value=self.numbers,
                        label=t("home.quant"),
                        on_change=partial(self._set, "numbers"),
                    ).props("outlined dense")
                self.meaning = text("", "soft")
                with line():
                    button(t("home.start"), self._start, "main")
                self.out = ui.element("div").classes("flex flex-col gap-3 w-full")
            with card():
                text(t("home.use"), tag="h2")
                self.snippets = ui.element("div").classes("flex flex-col gap-3 w-full")
        self._changed()
        ui.timer(EVERY_S, self._redraw)

    def _set(self, name: str, event: Any) -> None:
        setattr(self, name, event.value)
        if name == "form" and NUMBERS[self.form]:
            self.numbers = NUMBERS[self.form][0]
            self.quants.set_options(list(NUMBERS[self.form]), value=self.numbers)
        self._changed()

    def _changed(self) -> None:
        self.seen = None
        self.quants.set_visibility(bool(NUMBERS[self.form]))
        self.meaning.set_content(self.t(f"home.means_{self.form}"))
        self._redraw()

    def _folder(self) -> str:
        return f"{self.run}-{self.form}" + (f"-{self.numbers}" if NUMBERS[self.form] else "")

    def _job(self) -> Job | None:
        out = str(self.exports / self._folder())
        found = [j for j in self.jobs.all() if j.kind == "export" and j.arguments.get("out") == out]
        return found[-1] if found else None

    def _start(self) -> None:
        job = self._job()
        if job is None or job.state() not in ("waiting", "running"):
            self.exports.mkdir(exist_ok=True)
            kind = "dtype" if self.form == "merged" else "quant"
            numbers = {kind: self.numbers} if NUMBERS[self.form] else {}
            out = str(self.exports / self._folder())
            self.jobs.add("export", self.run, run=f"runs/{self.run}", to=self.form, out=out, **numbers)
        self._redraw()

    def _redraw(self) -> None:
        job = self._job()
        now = (self._folder(), job and job.id, job and job.state())
        if now == self.seen:
            return
        self.seen = now
        self.out.clear()
        with self.out:
            if job is not None:
                self._outcome(job)
        self.snippets.clear()
        with self.snippets:
            for name, code in snippets(self.run, f"exports/{self._folder()}", self.form).items():
                text(name, "who")
                text(code, "code", tag="pre")

    def _outcome(self, job: Job) -> None:
        t, state = self.t, job.state()
        ended = job.read("ended.json") or {}
        if state in ("waiting", "running"):
            with line():
                ui.spinner(size="1.3em")
                text(t("home.working") if state == "running" else t("state.waiting"))
                button(t("train.stop"), job.stop, "quiet danger")
        elif state == "done":
            result = ended.get("result", {})
            for check in result.get("checks", ()):
                text(f"✓ {agreement(t, check)}", "notice good-n small num")
            folder = self.exports / self._folder()
            rows: list[list[Any]] = [
                [
                    partial(link, name, f"/exports/{quote(self._folder())}/{quote(name)}", ""),
                    size((folder / name).stat().st_size),
                ]
                for name in result.get("files", ())
                if (folder / name).is_file()
            ]
            with line():
                link(t("home.download"), f"/exports-zip/{quote(self._folder())}", "btn main")
            table([(t("data.file"), "wide"), (t("data.size"), "num")], rows)
            text(t("home.lies", folder=f"exports/{self._folder()}"), "soft small")
        else:
            said = ended.get("what") or job.log(2000)
            show_error(t, SartorError.from_json({**ended, "what": said}))


def agreement(t: Words, check: Mapping[str, Any]) -> str:
    """What the self-check of an export measured."""
    return t(
        "home.agrees",
        form=check["form"],
        share=f"{check['agreement']:.1%}",
        positions=check["positions"],
        least=f"{check['min_agreement']:.0%}",
        largest=f"{check['largest']:.4f}",
        limit=f"{check['limit']:g}",
    )


def snippets(run: str, folder: str, form: str) -> dict[str, str]:
    """Name of a program → the lines that use the model in it."""
    place, name = shlex.quote(folder), re.sub(r"[^a-z0-9._-]+", "-", run.lower()).strip("-._") or "model"
    shown = {
        "sartor": f"sartor serve {shlex.quote(f'runs/{run}')}",
        "openai": "from openai import OpenAI\n"
        'client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")\n'
        f"answer = client.chat.completions.create(\n    model={json.dumps(run, ensure_ascii=False)},\n"
        '    messages=[{"role": "user", "content": "…"}],\n)\nprint(answer.choices[0].message.content)',
    }
    if form == "merged":
        shown["transformers"] = (
            "from transformers import pipeline\n"
            f'ask = pipeline("text-generation", {json.dumps(folder, ensure_ascii=False)})\n'
            'print(ask([{"role": "user", "content": "…"}])[0]["generated_text"][-1])'
        )
        shown["vLLM"] = f"vllm serve {place}"
    elif form == "adapter":
        shown["transformers + peft"] = (
            "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n"
            f"model = AutoPeftModelForCausalLM.from_pretrained({json.dumps(folder, ensure_ascii=False)})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(folder, ensure_ascii=False)})"
        )
        shown["vLLM"] = f"vllm serve BASE_MODEL --enable-lora --lora-modules {name}={place}"
    elif form == "gguf":
        shown["llama.cpp"] = f"llama-server -m {place}/*.gguf --jinja"
    else:
        shown["Ollama"] = f"cd {place}\nollama create {name} -f Modelfile\nollama run {name}"
    return shown
