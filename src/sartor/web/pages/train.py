"""The page `/train`: the settings as a form and as YAML in sync, the equivalent command, start and queue."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from sartor.base.config import RunConfig, to_yaml
from sartor.base.errors import ConfigError, SartorError
from sartor.base.files import atomic_write
from sartor.base.i18n import Text, tr
from sartor.base.rundir import RunDir
from sartor.base.settings import FIRST_TRAINING, SECTIONS
from sartor.data.dataset_info import read_registry
from sartor.prompt.named_templates import template_names
from sartor.web.components import (
    button,
    card,
    facts,
    heading,
    line,
    number,
    page_frame,
    set_text,
    show_error,
    text,
)
from sartor.web.form import (
    COMMON,
    MAX_YAML_CHARACTERS,
    Field,
    check_paths,
    command,
    fields,
    free_name,
    parse_yaml,
    shown,
    typed,
)
from sartor.web.i18n import Translator
from sartor.web.jobs import Job, Jobs
from sartor.web.queue_view import QueueView
from sartor.web.run_monitor import clock, duration
from sartor.web.workspace import Workspace

SECTION_NAMES = {
    "model": tr("Model"),
    "data": tr("Data"),
    "prompt": tr("Prompt"),
    "method": tr("Method"),
    "train": tr("Training"),
    "evaluation": tr("Evaluation"),
    "generation": tr("Generation"),
    "export": tr("Export"),
}


def add_to(workspace: Workspace, jobs: Jobs) -> None:
    @ui.page("/train")
    def page(request: Request, dataset: str = "", run: str = "") -> None:
        with page_frame(request, "train") as t:
            heading(
                t("Train"),
                t(
                    "Common settings are shown; all others are folded below. The form and the YAML always "
                    "match; edit either."
                ),
            )
            waiting = ui.element("div")
            QueueView(jobs, t, waiting).draw()
            TrainForm(workspace, jobs, t, _beginning(workspace, jobs, dataset, run)).draw()


def _queued(workspace: Workspace, run: str) -> Path:
    """The settings of a job, which a run's folder will hold once it has a plan."""
    return workspace.resolve_inside(f"{run}.yaml", workspace.jobs)


def _beginning(workspace: Workspace, jobs: Jobs, dataset: str, run: str) -> dict[str, Any]:
    """The initial settings: those of a run, or the defaults with a dataset."""
    if run:
        try:
            begun = RunDir(workspace.resolve_inside(run, workspace.runs))
            file = begun.config if begun.exists() else _queued(workspace, run)
            settings = parse_yaml(file.read_text(encoding="utf-8"))
            return {**settings, "output_dir": free_name(workspace, run, jobs.runs_to_come())}
        except (SartorError, OSError, ValueError):
            pass  # neither a run nor a job that was to be one: use the defaults
    names = _datasets(workspace)
    chosen = dataset if dataset in names else (names[0] if names else "")
    place = {"dataset_dir": "."} if workspace.data == workspace.folder else {}
    if not chosen:
        return dict(FIRST_TRAINING)
    return {
        **FIRST_TRAINING,
        "dataset": chosen,
        **place,
        "output_dir": free_name(workspace, chosen, jobs.runs_to_come()),
    }


def _datasets(workspace: Workspace) -> list[str]:
    try:
        return list(read_registry(workspace.data).entries)
    except SartorError:
        return []


class TrainForm:
    """`self.settings` is the source of truth; the fields and the YAML both show and change it."""

    def __init__(self, workspace: Workspace, jobs: Jobs, t: Translator, settings: dict[str, Any]) -> None:
        self.workspace, self.jobs, self.t, self.settings = workspace, jobs, t, settings
        self.boxes: dict[str, Any] = {}
        self.quiet = False
        """True while one side is updated from the other."""

    def draw(self) -> None:
        t = self.t
        known = {field.key: field for field in fields()}
        with ui.element("div").classes("two"):
            with ui.element("div").classes("flex flex-col gap-4"):
                with card(), ui.element("div").classes("fields"):
                    for key in COMMON:
                        self._field(known[key])
                with card("flush"):
                    for section in SECTIONS:
                        rest = [f for f in known.values() if f.section == section and f.key not in COMMON]
                        with (
                            ui.expansion(t(SECTION_NAMES[section])).classes("w-full"),
                            ui.element("div").classes("fields").style("padding:4px 4px 12px"),
                        ):
                            for field in rest:
                                self._field(field)
            with ui.element("div").classes("flex flex-col gap-4").style("position:sticky;top:76px"):
                with card():
                    with line("spread"):
                        text(t("YAML"), tag="h2")
                        self._files()
                    self.yaml = ui.textarea(value=to_yaml(self.settings), on_change=self._from_yaml)
                    self.yaml.props(f'outlined debounce=300 aria-label="{t("YAML")}"').classes("yaml w-full")
                    self.message = ui.element("div")
                    with line():
                        button(t("Start training"), self._start, "main")
                        button(t("Estimate"), self._estimate)
                        button(t("Save as file"), lambda: ui.download.content(to_yaml(self.settings), "settings.yaml"))
                    self.preflight = ui.element("div").classes("flex flex-col gap-3 w-full")
                with card():
                    text(t("Equivalent command"), tag="h2")
                    self.command = text("", "code", tag="pre")
        self._check()

    def _files(self) -> None:
        found = [p.relative_to(self.workspace.folder).as_posix() for p in self.workspace.folder.glob("*.y*ml")]
        found += [f"runs/{p.parent.name}/config.yaml" for p in self.workspace.runs.glob("*/config.yaml")]
        with line():
            with ui.element("label").classes("btn file"):
                ui.element("input").props(
                    f'type=file data-upload accept=".yaml,.yml" aria-label="{self.t("Open file")}"'
                )
                text(self.t("Open file"), tag="span")
            if found:
                ui.select(found, label=self.t("Load"), on_change=lambda e: self._load(str(e.value))).props(
                    "outlined dense"
                ).style("min-width:150px")
        ui.on("sartor-uploaded", self._uploaded)

    def _uploaded(self, event: Any) -> None:
        answer = event.args if isinstance(event.args, dict) else {}
        if "file" in answer:
            self._load(str(answer["file"]))
        else:
            where, fix = str(answer.get("where", "")), str(answer.get("fix", ""))
            self._show_error(ConfigError(str(answer.get("error", "")), where, fix))

    def _load(self, file: str) -> None:
        """Load settings from a file; they are checked like typed ones before anything starts."""
        try:
            path = self.workspace.resolve_inside(file)
            if path.stat().st_size > 4 * MAX_YAML_CHARACTERS:
                raise ConfigError("The text is too long for settings.", file, "Choose a settings file.")
            self.yaml.value = path.read_text(encoding="utf-8-sig")
        except (SartorError, OSError, UnicodeDecodeError) as error:
            self._show_error(error)

    def _field(self, field: Field) -> None:
        value, hint = self.settings.get(field.key), self.t(field.description).replace("`", "")
        default = shown(field.default)
        options: dict[Any, str] | list[Any] | None = None
        if field.key == "dataset":
            options = _datasets(self.workspace)
        elif field.key == "model_name_or_path":
            options = self.workspace.models()
        elif field.key == "template":
            options = {None: self.t("model default"), **{name: name for name in template_names()}}
        elif field.choices is not None:
            options = {None: f"({default.lower() or self.t('unset')})"}
            options |= {choice: shown(choice).lower() for choice in field.choices if choice is not None}
        box: Any
        if options is None:
            box = ui.input(field.key, value=shown(value), placeholder=default)
            box.props("outlined dense debounce=250 stack-label")
        else:
            free = field.key in ("model_name_or_path", "dataset")
            several = field.key == "dataset"
            box = ui.select(
                options if isinstance(options, dict) else list(dict.fromkeys([*options, *_listed(value)])),
                label=field.key,
                value=_listed(value) if several else value,
                multiple=several,
                with_input=free and not several,
                new_value_mode="add-unique" if free and not several else None,
            )
            box.props("outlined dense options-dense")
        box.props["hint"] = hint
        box.classes("w-full")
        box.on_value_change(partial(self._from_field, field))
        self.boxes[field.key] = box

    def _from_field(self, field: Field, event: Any) -> None:
        if self.quiet:
            return
        value = typed(event.value) if isinstance(event.value, str) and field.choices is None else event.value
        if field.key == "dataset" and isinstance(value, list):
            value = value[0] if len(value) == 1 else value
        if value is None or value == []:
            self.settings.pop(field.key, None)
        else:
            self.settings[field.key] = value
        self.quiet = True
        self.yaml.value = to_yaml(self.settings)
        self.quiet = False
        self._check()

    def _from_yaml(self, event: Any) -> None:
        if self.quiet:
            return
        try:
            self.settings = parse_yaml(event.value or "")
        except SartorError as error:
            self._show_error(error)
            return
        self.quiet = True
        for key, box in self.boxes.items():
            value = self.settings.get(key)
            try:
                if isinstance(box, ui.select):
                    wanted = _listed(value) if box.multiple else value
                    missing = [v for v in _listed(value) if v not in box.options]
                    if missing and isinstance(box.options, list):
                        box.set_options([*box.options, *missing])
                    box.value = wanted
                else:
                    box.value = shown(value)
            except ValueError:
                continue  # not one of the choices: the error below names it
        self.quiet = False
        self._check()

    def _check(self) -> None:
        """Update the command, and show what is wrong with the settings."""
        set_text(self.command, command(self.settings))
        try:
            check_paths(self.workspace, self._config())
            self._show_error(None)
        except SartorError as error:
            self._show_error(error)

    def _config(self) -> RunConfig:
        return RunConfig.from_dict(self.settings, "")

    def _show_error(self, error: BaseException | None) -> None:
        self.message.clear()
        if error:
            with self.message:
                show_error(self.t, error)

    def _save_settings(self) -> tuple[str, str] | None:
        """Save the settings for a job. Returns the run's name and the file; None after showing what is wrong."""
        try:
            config = self._config()
            check_paths(self.workspace, config)
            if not config.data.dataset:
                raise ConfigError(
                    "No dataset is chosen.", "dataset", "Choose one in the form, or import a file on the Data page."
                )
            if not config.train.output_dir:
                name = free_name(self.workspace, "+".join(config.data.dataset), self.jobs.runs_to_come())
                config = config.replace(output_dir=name)
        except SartorError as error:
            self._show_error(error)
            return None
        run = str(config.train.output_dir).rstrip("/").rpartition("/")[2]
        settings = _queued(self.workspace, run)
        settings.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(settings, to_yaml(config.given))
        return run, str(settings)

    def _start(self) -> None:
        if saved := self._save_settings():
            self.jobs.add("train", saved[0], settings=saved[1])
            ui.navigate.to(f"/runs/{quote(saved[0])}")

    def _estimate(self) -> None:
        """Try the longest batch in a separate process, and show the result."""
        if saved := self._save_settings():
            job = self.jobs.add("estimate", saved[0], settings=saved[1])
            self.preflight.clear()
            with self.preflight, line():
                ui.spinner(size="1.3em")
                text(self.t("Trying the longest batch…"))

            def poll() -> None:
                if job.state() not in ("waiting", "running"):
                    timer.cancel()
                    self._estimated(job)

            timer = ui.timer(0.5, poll)

    def _estimated(self, job: Job) -> None:
        t, ended = self.t, job.read("ended.json") or {}
        self.preflight.clear()
        with self.preflight:
            if job.state() != "done":
                show_error(t, job.error() or SartorError(job.log(2000)))
                return
            found = ended["result"]["estimate"]
            memory, disk = f"{found['peak_memory_bytes'] / 2**30:.1f}", f"{found['disk_bytes'] / 1e9:.2f} GB"
            facts(
                [
                    (t("step"), number(found["total_steps"])),
                    (t("duration"), duration(found["seconds"])),
                    (t("finishes at"), clock(time.time() + found["seconds"])),
                    (t("memory"), f"{memory} / {found['device_memory_bytes'] / 2**30:.0f} GiB"),
                    (t("disk"), disk),
                ]
            )
            for advice in found["advice"]:
                text(t(Text.from_json(advice)), "notice warn-n small")
            with ui.expansion(t("Decisions and reasons")).classes("w-full"):
                for name, (value, reason) in ended["result"]["reasons"].items():
                    text(f"{name}: {value}", "who mono")
                    text(t(Text.from_json(reason)), "small")


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [value]
