"""The page `/train`: the settings as a form and as YAML, kept equal; the command line; start, and what waits."""

from __future__ import annotations

import time
from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from sartor.base.config import RunConfig, to_yaml
from sartor.base.errors import ConfigError, SartorError
from sartor.base.files import atomic_write
from sartor.base.i18n import Text
from sartor.base.settings import SECTIONS
from sartor.data.dataset_info import read_registry
from sartor.prompt.template import template_names
from sartor.web.components import (
    button,
    card,
    facts,
    heading,
    line,
    link,
    number,
    page_frame,
    pill,
    show_error,
    table,
    text,
)
from sartor.web.form import (
    COMMON,
    DEFAULTS,
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
from sartor.web.i18n import Words, explained
from sartor.web.jobs import Job, Jobs
from sartor.web.run_monitor import clock, duration
from sartor.web.workspace import Workspace


def add_to(desk: Workspace, jobs: Jobs) -> None:
    @ui.page("/train")
    def page(request: Request, dataset: str = "", run: str = "") -> None:
        with page_frame(request, "train") as t:
            heading(t("train.title"), t("train.lead"))
            waiting = ui.element("div")
            QueueView(jobs, t, waiting).draw()
            TrainForm(desk, jobs, t, _beginning(desk, dataset, run)).draw()


def _beginning(desk: Workspace, dataset: str, run: str) -> dict[str, Any]:
    """The settings to begin with: those of a run, or the usual ones on a dataset."""
    if run:
        try:
            asked = parse_yaml(desk.run(run).config.read_text(encoding="utf-8"))
            return {**asked, "output_dir": free_name(desk, run)}
        except SartorError:
            pass  # what was only estimated has no run yet: the usual settings
    names = _datasets(desk)
    chosen = dataset if dataset in names else (names[0] if names else "")
    place = {"dataset_dir": "."} if desk.data == desk.folder else {}
    asked = {"dataset": chosen, **place, "output_dir": free_name(desk, chosen or "run")} if chosen else {}
    return {**DEFAULTS, **asked}


def _datasets(desk: Workspace) -> list[str]:
    try:
        return list(read_registry(desk.data).entries)
    except SartorError:
        return []


class TrainForm:
    """`asked` is the truth; fields and YAML show it, and each changes it."""

    def __init__(self, desk: Workspace, jobs: Jobs, t: Words, asked: dict[str, Any]) -> None:
        self.desk, self.jobs, self.t, self.asked = desk, jobs, t, asked
        self.boxes: dict[str, Any] = {}
        self.quiet = False
        """While one side is set from the other."""

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
                            ui.expansion(t(f"train.section_{section}")).classes("w-full"),
                            ui.element("div").classes("fields").style("padding:4px 4px 12px"),
                        ):
                            for field in rest:
                                self._field(field)
            with ui.element("div").classes("flex flex-col gap-4").style("position:sticky;top:76px"):
                with card():
                    with line("spread"):
                        text(t("train.yaml"), tag="h2")
                        self._files()
                    self.yaml = ui.textarea(value=to_yaml(self.asked), on_change=self._from_yaml)
                    self.yaml.props(f'outlined debounce=300 aria-label="{t("train.yaml")}"').classes("yaml w-full")
                    self.said = ui.element("div")
                    with line():
                        button(t("train.start"), self._start, "main")
                        button(t("train.estimate"), self._estimate)
                        button(t("train.save"), lambda: ui.download.content(to_yaml(self.asked), "settings.yaml"))
                    self.flight = ui.element("div").classes("flex flex-col gap-3 w-full")
                with card():
                    text(t("train.command"), tag="h2")
                    self.command = text("", "code", tag="pre")
        self._told()

    def _files(self) -> None:
        found = [p.relative_to(self.desk.folder).as_posix() for p in self.desk.folder.glob("*.y*ml")]
        found += [f"runs/{p.parent.name}/config.yaml" for p in self.desk.runs.glob("*/config.yaml")]
        with line():
            with ui.element("label").classes("btn file"):
                ui.element("input").props(
                    f'type=file data-upload accept=".yaml,.yml" aria-label="{self.t("train.bring")}"'
                )
                text(self.t("train.bring"), tag="span")
            if found:
                ui.select(found, label=self.t("train.load"), on_change=lambda e: self._load(str(e.value))).props(
                    "outlined dense"
                ).style("min-width:150px")
        ui.on("sartor-uploaded", self._uploaded)

    def _uploaded(self, event: Any) -> None:
        answer = event.args if isinstance(event.args, dict) else {}
        if "file" in answer:
            self._load(str(answer["file"]))
        else:
            where, fix = str(answer.get("where", "")), str(answer.get("fix", ""))
            self._tell(ConfigError(str(answer.get("error", "")), where, fix))

    def _load(self, file: str) -> None:
        """Settings from a file; whatever stands in it, `allow` sees it before anything starts."""
        try:
            path = self.desk.resolve_inside(file)
            if path.stat().st_size > 4 * MAX_YAML_CHARACTERS:
                raise ConfigError("This is too long for settings.", file, "Is it another file?")
            self.yaml.value = path.read_text(encoding="utf-8-sig")
        except (SartorError, OSError, UnicodeDecodeError) as error:
            self._tell(error)

    def _field(self, field: Field) -> None:
        value, hint = self.asked.get(field.key), explained(self.t.lang, field.key, field.description).replace("`", "")
        default = shown(field.default)
        options: dict[Any, str] | list[Any] | None = None
        if field.key == "dataset":
            options = _datasets(self.desk)
        elif field.key == "model_name_or_path":
            options = self.desk.models()
        elif field.key == "template":
            options = {None: self.t("dataset.own_template"), **{name: name for name in template_names()}}
        elif field.choices is not None:
            options = {None: f"({default.lower() or self.t('train.unset')})"}
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
            self.asked.pop(field.key, None)
        else:
            self.asked[field.key] = value
        self.quiet = True
        self.yaml.value = to_yaml(self.asked)
        self.quiet = False
        self._told()

    def _from_yaml(self, event: Any) -> None:
        if self.quiet:
            return
        try:
            self.asked = parse_yaml(event.value or "")
        except SartorError as error:
            self._tell(error)
            return
        self.quiet = True
        for key, box in self.boxes.items():
            value = self.asked.get(key)
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
                continue  # a value that is none of the choices: the error below names it
        self.quiet = False
        self._told()

    def _told(self) -> None:
        """The command line, and what is wrong with the settings, if anything."""
        self.command.set_content(_escaped(command(self.asked)))
        try:
            check_paths(self.desk, self._config())
            self._tell(None)
        except SartorError as error:
            self._tell(error)

    def _config(self) -> RunConfig:
        return RunConfig.from_dict(self.asked, "")

    def _tell(self, error: BaseException | None) -> None:
        self.said.clear()
        if error:
            with self.said:
                show_error(self.t, error)

    def _asked(self) -> tuple[str, str] | None:
        """The run's name and the file with the settings, when they may be used; what is wrong is said."""
        try:
            config = self._config()
            check_paths(self.desk, config)
            if not config.data.dataset:
                raise ConfigError(self.t("train.no_dataset"), "dataset", self.t("train.no_dataset_fix"))
            if not config.train.output_dir:
                config = config.replace(output_dir=free_name(self.desk, "+".join(config.data.dataset)))
        except SartorError as error:
            self._tell(error)
            return None
        run = str(config.train.output_dir).rstrip("/").rpartition("/")[2]
        settings = self.desk.jobs / f"{run}.yaml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(settings, to_yaml(config.given))
        return run, str(settings)

    def _start(self) -> None:
        if asked := self._asked():
            self.jobs.add("train", asked[0], settings=asked[1])
            ui.navigate.to(f"/runs/{quote(asked[0])}")

    def _estimate(self) -> None:
        """Try the longest batch in a process of its own, and show what came of it."""
        if asked := self._asked():
            job = self.jobs.add("estimate", asked[0], settings=asked[1])
            self.flight.clear()
            with self.flight, line():
                ui.spinner(size="1.3em")
                text(self.t("train.estimating"))

            def look() -> None:
                if job.state() not in ("waiting", "running"):
                    timer.cancel()
                    self._estimated(job)

            timer = ui.timer(0.5, look)

    def _estimated(self, job: Job) -> None:
        t, ended = self.t, job.read("ended.json") or {}
        self.flight.clear()
        with self.flight:
            if job.state() != "done":
                said = ended.get("what") or job.log(2000)
                show_error(t, SartorError.from_json({**ended, "what": said}))
                return
            found = ended["result"]["estimate"]
            memory, disk = f"{found['peak_memory_bytes'] / 2**30:.1f}", f"{found['disk_bytes'] / 1e9:.2f} GB"
            facts(
                [
                    (t("runs.step"), number(found["total_steps"])),
                    (t("train.takes"), duration(found["seconds"])),
                    (t("train.until"), clock(time.time() + found["seconds"])),
                    (t("runs.memory"), f"{memory} / {found['device_memory_bytes'] / 2**30:.0f} GiB"),
                    (t("train.disk"), disk),
                ]
            )
            for advice in found["advice"]:
                text(Text.from_json(advice).render(t.lang), "notice warn-n small")
            with ui.expansion(t("train.reasons")).classes("w-full"):
                for name, (value, reason) in ended["result"]["reasons"].items():
                    text(f"{name}: {value}", "who mono")
                    text(Text.from_json(reason).render(t.lang), "small")


def place_of(job: Job) -> str:
    """The page that shows what a job is about."""
    places = {
        "generate": "/generate?name=",
        "estimate": "/train?run=",
        "compare": "/evaluate?run=",
        "contest": "/evaluate?run=",
        "export": "/home?run=",
    }
    return places.get(job.kind, "/runs/") + quote(job.run, safe="")


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [value]


def _escaped(words: str) -> str:
    import html

    return html.escape(words)


class QueueView:
    """What runs and what waits, redrawn while there is anything."""

    def __init__(self, jobs: Jobs, t: Words, place: ui.element) -> None:
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
                    partial(link, job.run, place_of(job), ""),
                    t(f"train.kind_{job.kind}"),
                    partial(pill, t(f"state.{state}"), state),
                    partial(button, t("train.stop"), partial(self._stop, job), "quiet danger"),
                ]
                for job, state in now
            ]
            table([(t("train.queue"), ""), (t("train.work"), ""), (t("train.state"), ""), ("", "act")], rows)

    def _stop(self, job: Any) -> None:
        job.stop()
        self._redraw()
