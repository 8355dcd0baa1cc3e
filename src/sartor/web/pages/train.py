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
from sartor.base.files import atomic_write, system_errors
from sartor.base.i18n import Text, tr
from sartor.base.rundir import RunDir
from sartor.base.settings import FIRST_TRAINING, SECTIONS
from sartor.data.dataset_info import read_registry
from sartor.prompt.named_templates import template_names
from sartor.web import components
from sartor.web.components import (
    button,
    card,
    facts,
    heading,
    line,
    number,
    page_frame,
    set_text,
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
from sartor.web.jobs import Job, Jobs, Kind
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
            settings, problem = _beginning(workspace, jobs, dataset, run)
            form = TrainForm(workspace, jobs, t, settings)
            form.draw()
            if problem:
                form.show_error(problem)


def _queued(workspace: Workspace, run: str, kind: Kind = "train") -> Path:
    """The settings of a job, which a run's folder will hold once it has a plan; an estimate has its own."""
    return workspace.resolve_inside(f"{run}.yaml" if kind == "train" else f"{run}.{kind}.yaml", workspace.jobs)


def _beginning(workspace: Workspace, jobs: Jobs, dataset: str, run: str) -> tuple[dict[str, Any], SartorError | None]:
    """The initial settings, those of a run or the defaults with a dataset; and why they are not the run's."""
    problem = None
    if run:
        try:
            with system_errors():
                settings = _settings_of(workspace, run)
            return {**settings, "output_dir": free_name(workspace, run, jobs.runs_to_come())}, None
        except SartorError as error:
            problem = error
    names = _datasets(workspace)
    chosen = dataset if dataset in names else (names[0] if names else "")
    if not chosen:
        return dict(FIRST_TRAINING), problem
    place = {"dataset_dir": "."} if workspace.data == workspace.folder else {}
    folder = free_name(workspace, chosen, jobs.runs_to_come())
    return {**FIRST_TRAINING, "dataset": chosen, **place, "output_dir": folder}, problem


def _settings_of(workspace: Workspace, run: str) -> dict[str, Any]:
    """The settings of a run, or of a job that is to become one. Raises: SartorError, OSError."""
    begun = RunDir(workspace.resolve_inside(run, workspace.runs))
    places = (begun.config, _queued(workspace, run), _queued(workspace, run, "estimate"))
    file = next((place for place in places if place.exists()), places[0])
    try:
        return parse_yaml(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(
            "The file is not valid UTF-8 (byte {byte}).", file, "Save it as UTF-8.", byte=error.start
        ) from None


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
            self.show_error(ConfigError(str(answer.get("error", "")), where, fix))

    def _load(self, file: str) -> None:
        """Load settings from a file; they are checked like typed ones before anything starts."""
        try:
            path = self.workspace.resolve_inside(file)
            if path.stat().st_size > 4 * MAX_YAML_CHARACTERS:
                raise ConfigError("The text is too long for settings.", file, "Choose a settings file.")
            self.yaml.value = path.read_text(encoding="utf-8-sig")
        except (SartorError, OSError, UnicodeDecodeError) as error:
            self.show_error(error)

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
            self.show_error(error)
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
            self.show_error(None)
        except SartorError as error:
            self.show_error(error)

    def _config(self) -> RunConfig:
        return RunConfig.from_dict(self.settings, "")

    def show_error(self, error: BaseException | None) -> None:
        self.message.clear()
        if error:
            with self.message:
                components.show_error(self.t, error)

    def _settings(self) -> RunConfig | None:
        """The settings to start, with a folder for the run; None after showing what is wrong."""
        try:
            config = self._config()
            check_paths(self.workspace, config)
            if not config.data.dataset:
                raise ConfigError(
                    "No dataset is chosen.", "dataset", "Choose one in the form, or import a file on the Data page."
                )
            if not config.train.output_dir:  # the form keeps it: a second click means the same run
                self.settings["output_dir"] = free_name(
                    self.workspace, "+".join(config.data.dataset), self.jobs.runs_to_come()
                )
                self.yaml.value = to_yaml(self.settings)
                config = self._config()
        except SartorError as error:
            self.show_error(error)
            return None
        return config

    def _add(self, kind: Kind) -> Job | None:
        """Queue a job with the settings of the form; None after showing what is wrong."""
        config = self._settings()
        if config is None:
            return None
        run = str(config.train.output_dir).rstrip("/").rpartition("/")[2]
        file = _queued(self.workspace, run, kind)
        try:
            write = partial(atomic_write, file, to_yaml(config.given))
            with system_errors():
                return self.jobs.add(kind, run, prepare=write, settings=str(file))
        except SartorError as error:
            self.show_error(error)
            return None

    def _start(self) -> None:
        if job := self._add("train"):
            ui.navigate.to(f"/runs/{quote(job.run)}")

    def _estimate(self) -> None:
        """Try the longest batch in a separate process, and show the result."""
        if job := self._add("estimate"):
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
                components.show_error(t, job.error() or SartorError(job.log(2000)))
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
