"""The page `/export`: export a run in a chosen format, download it, and see how to use it."""

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
from sartor.exporters import EXPORTERS, Exporter
from sartor.web.components import (
    button,
    card,
    empty,
    heading,
    line,
    link,
    page_frame,
    run_in_thread,
    set_text,
    show_error,
    size,
    table,
    text,
)
from sartor.web.i18n import Translator
from sartor.web.jobs import Job, Jobs
from sartor.web.workspace import Workspace
from sartor.web.zip_stream import zipped

EVERY_S = 1.0


def precisions(exporter: Exporter) -> tuple[str, ...]:
    """The number formats to choose from, the default first; empty where the format has none."""
    return exporter.quants or exporter.dtypes


def add_to(workspace: Workspace, jobs: Jobs) -> None:
    exports = workspace.folder / "exports"

    @ui.page("/export", response_timeout=30)
    async def page(request: Request, run: str = "") -> None:
        with page_frame(request, "export") as t:
            heading(
                t("Export"),
                t(
                    "Save the tuned model in a format for other programs. Each export is reloaded and must "
                    "give the same answers before it is kept."
                ),
            )
            found = await run_in_thread(partial(api.runs, workspace.runs))
            names = [] if isinstance(found, SartorError) else [r.name for r in found if r.state == "finished"]
            if not names:
                with card(), empty(t("No finished run yet"), t("Train one first, then export it here.")):
                    link(t("Train"), "/train", "btn main")
                return
            ExportView(jobs, t, names, run if run in names else names[0], exports).draw()

    @app.get("/exports/{path:path}")
    def file(path: str) -> Response:
        """A file of an export, as a download."""
        try:
            found = workspace.resolve_inside(path, exports)
        except SartorError:
            return PlainTextResponse("Not found.", 404)
        if not found.is_file():
            return PlainTextResponse("Not found.", 404)
        return FileResponse(found, filename=found.name)

    @app.get("/exports-zip/{name}")
    def together(name: str) -> Response:
        """All files of an export as one download."""
        try:
            found = workspace.resolve_inside(name, exports)
        except SartorError:
            return PlainTextResponse("Not found.", 404)
        if found.parent != exports.resolve() or not found.is_dir():
            return PlainTextResponse("Not found.", 404)
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(found.name)}.zip"}
        return StreamingResponse(zipped(found), media_type="application/zip", headers=headers)


class ExportView:
    """The export of one run."""

    def __init__(self, jobs: Jobs, t: Translator, names: list[str], run: str, exports: Path) -> None:
        self.jobs, self.t, self.names, self.run, self.exports = jobs, t, names, run, exports
        self.format, self.precision = "merged", "float16"
        self.seen: Any = None

    def draw(self) -> None:
        t = self.t
        with ui.element("div").classes("two"):
            with card():
                with ui.element("div").classes("fields"):
                    ui.select(self.names, value=self.run, label=t("Run"), on_change=partial(self._set, "run")).props(
                        "outlined dense"
                    )
                    names = {exporter.name: t(exporter.label) for exporter in EXPORTERS.all()}
                    ui.select(
                        names, value=self.format, label=t("Export format"), on_change=partial(self._set, "format")
                    ).props("outlined dense")
                    self.precisions = ui.select(
                        list(precisions(EXPORTERS.get(self.format))),
                        value=self.precision,
                        label=t("Precision"),
                        on_change=partial(self._set, "precision"),
                    ).props("outlined dense")
                self.description = text("", "soft")
                with line():
                    button(t("Export"), self._start, "main")
                self.out = ui.element("div").classes("flex flex-col gap-3 w-full")
            with card():
                text(t("How to use it"), tag="h2")
                self.snippets = ui.element("div").classes("flex flex-col gap-3 w-full")
        self._changed()
        ui.timer(EVERY_S, self._redraw)

    def _set(self, name: str, event: Any) -> None:
        setattr(self, name, event.value)
        if name == "format" and (choices := precisions(EXPORTERS.get(self.format))):
            self.precision = choices[0]
            self.precisions.set_options(list(choices), value=self.precision)
        self._changed()

    def _changed(self) -> None:
        self.seen = None
        self.precisions.set_visibility(bool(precisions(EXPORTERS.get(self.format))))
        set_text(self.description, self.t(EXPORTERS.get(self.format).description))
        self._redraw()

    def _folder(self) -> str:
        return f"{self.run}-{self.format}" + (f"-{self.precision}" if precisions(EXPORTERS.get(self.format)) else "")

    def _job(self) -> Job | None:
        out = str(self.exports / self._folder())
        found = [j for j in self.jobs.all() if j.kind == "export" and j.arguments.get("out") == out]
        return found[-1] if found else None

    def _start(self) -> None:
        job = self._job()
        if job is None or job.state() not in ("waiting", "running"):
            self.exports.mkdir(exist_ok=True)
            exporter = EXPORTERS.get(self.format)
            setting = "quant" if exporter.quants else "dtype"
            precision: dict[str, Any] = {setting: self.precision} if precisions(exporter) else {}
            out = str(self.exports / self._folder())
            self.jobs.add("export", self.run, run=f"runs/{self.run}", to=self.format, out=out, **precision)
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
            for name, code in snippets(self.run, f"exports/{self._folder()}", self.format).items():
                text(name, "who")
                text(code, "code", tag="pre")

    def _outcome(self, job: Job) -> None:
        t, state = self.t, job.state()
        ended = job.read("ended.json") or {}
        if state in ("waiting", "running"):
            with line():
                ui.spinner(size="1.3em")
                text(t("Exporting and comparing answers…") if state == "running" else t("waiting"))
                button(t("Stop"), job.stop, "quiet danger")
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
                link(t("Download all as ZIP"), f"/exports-zip/{quote(self._folder())}", "btn main")
            table([(t("File"), "wide"), (t("Size"), "num")], rows)
            text(t("Saved in {folder}, in the folder of this page.", folder=f"exports/{self._folder()}"), "soft small")
        else:
            show_error(t, job.error() or SartorError(job.log(2000)))


def agreement(t: Translator, check: Mapping[str, Any]) -> str:
    """The result of an export's self-check."""
    return t(
        "{form}: {share} of {positions} tokens agree (minimum {minimum}), largest logit difference "
        "{largest} (limit {limit})",
        form=check["form"],
        share=f"{check['agreement']:.1%}",
        positions=check["positions"],
        minimum=f"{check['min_agreement']:.0%}",
        largest=f"{check['largest']:.4f}",
        limit=f"{check['limit']:g}",
    )


def snippets(run: str, folder: str, format: str) -> dict[str, str]:
    """Program → the lines that use the exported model in it."""
    place, name = shlex.quote(folder), re.sub(r"[^a-z0-9._-]+", "-", run.lower()).strip("-._") or "model"
    shown = {
        "sartor": f"sartor serve {shlex.quote(f'runs/{run}')}",
        "openai": "from openai import OpenAI\n"
        'client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")\n'
        f"answer = client.chat.completions.create(\n    model={json.dumps(run, ensure_ascii=False)},\n"
        '    messages=[{"role": "user", "content": "…"}],\n)\nprint(answer.choices[0].message.content)',
    }
    if format == "merged":
        shown["transformers"] = (
            "from transformers import pipeline\n"
            f'ask = pipeline("text-generation", {json.dumps(folder, ensure_ascii=False)})\n'
            'print(ask([{"role": "user", "content": "…"}])[0]["generated_text"][-1])'
        )
        shown["vLLM"] = f"vllm serve {place}"
    elif format == "adapter":
        shown["transformers + peft"] = (
            "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n"
            f"model = AutoPeftModelForCausalLM.from_pretrained({json.dumps(folder, ensure_ascii=False)})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(folder, ensure_ascii=False)})"
        )
        shown["vLLM"] = f"vllm serve BASE_MODEL --enable-lora --lora-modules {name}={place}"
    elif format == "gguf":
        shown["llama.cpp"] = f"llama-server -m {place}/*.gguf --jinja"
    else:
        shown["Ollama"] = f"cd {place}\nollama create {name} -f Modelfile\nollama run {name}"
    return shown
