"""The entry view of the dataset page: the dataset's entry in dataset_info.json, as a form and as JSON in sync."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nicegui import ui

from sartor.base.errors import DataError, SartorError
from sartor.base.i18n import tr
from sartor.data.dataset_info import parse_entry, read_registry, write_entry
from sartor.data.dataset_spec import COLUMNS, TAGS
from sartor.data.formats import FORMATS
from sartor.web.components import button, card, line, show_error, text
from sartor.web.i18n import Translator
from sartor.web.workspace import Workspace

GENERAL = ("file_name", "formatting", "encoding", "ranking", "split", "subset", "num_samples")
MEDIA = ("images", "videos", "audios")
"""Columns that are not supported yet."""
PLACES = (
    *((key,) for key in GENERAL),
    *(("columns", name) for name in COLUMNS if name not in MEDIA),
    *(("tags", name) for name in TAGS),
)
"""The path in the entry of every field of the form."""
HINTS = {
    "file_name": tr("The file, next to dataset_info.json."),
    "formatting": tr("One question per row (alpaca), or conversations."),
    "encoding": tr("Only needed if it is not detected."),
    "ranking": tr("Each row has a better and a worse answer."),
    "split": tr("Split of a hub dataset."),
    "subset": tr("Subset of a hub dataset."),
    "num_samples": tr("Maximum number of rows; empty means all."),
    "prompt": tr("The question."),
    "query": tr("Additional input to the question."),
    "response": tr("The answer."),
    "history": tr("Earlier turns, as pairs."),
    "messages": tr("Whole conversations."),
    "system": tr("The system prompt."),
    "tools": tr("The tools, as JSON."),
    "chosen": tr("The better answer."),
    "rejected": tr("The worse answer."),
    "kto_tag": tr("Whether the answer is good."),
}
SECTIONS = {
    "columns": tr("Columns: what each field of the file holds"),
    "tags": tr("Tags: how conversations name their parts and speakers"),
}


def value_at(entry: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    """The value at a path in the entry, or None."""
    found: Any = entry
    for key in place:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def with_value(entry: Mapping[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The entry with the value at a path. None or "" removes the key, and its parent if that becomes empty."""
    key, rest = place[0], place[1:]
    if rest:
        inner = entry.get(key)
        value = with_value(inner if isinstance(inner, Mapping) else {}, rest, value) or None
    if value is None or value == "":
        return {name: old for name, old in entry.items() if name != key}
    return {**entry, key: value}


def parsed(workspace: Workspace, name: str, shown: str) -> dict[str, Any]:
    """The entry of a JSON text. Raises: DataError for invalid JSON, a bad entry, or a file outside the folder."""
    try:
        entry = json.loads(shown or "")
    except ValueError as error:
        raise DataError("Invalid JSON: {reason}.", name, "Fix the JSON there.", reason=error) from None
    parse_entry(name, entry, workspace.data / "dataset_info.json")
    if entry.get("file_name"):
        workspace.resolve_inside(str(entry["file_name"]), workspace.data)
    return dict(entry)


class EntryEditor:
    """`self.entry` is the last valid JSON object; the form and the JSON text both show and change it."""

    def __init__(self, workspace: Workspace, t: Translator, name: str) -> None:
        self.workspace, self.t, self.name = workspace, t, name
        self.entry: dict[str, Any] = {}
        self.boxes: dict[tuple[str, ...], Any] = {}
        self.quiet = False
        """True while one side is updated from the other."""

    def draw(self) -> None:
        try:
            entry = read_registry(self.workspace.data).entries.get(self.name)
        except DataError:
            return  # the page shows this error already
        if entry is None:
            return
        self.entry = dict(entry) if isinstance(entry, dict) else {}
        with ui.element("div").classes("two"):
            with ui.element("div").classes("flex flex-col gap-4"):
                with card(), ui.element("div").classes("fields"):
                    for key in GENERAL:
                        self._box((key,))
                with card("flush"):
                    for part, title in SECTIONS.items():
                        with (
                            ui.expansion(self.t(title), value=part == "columns").classes("w-full"),
                            ui.element("div").classes("fields").style("padding:4px 4px 12px"),
                        ):
                            for place in PLACES:
                                if place[0] == part:
                                    self._box(place)
            with card():
                text(self.t("How dataset_info.json describes this dataset. Checked as you type."), "soft")
                self.json = ui.textarea(value=_written(entry), on_change=self._from_json)
                self.json.props(f'outlined autogrow debounce=200 aria-label="{self.t("Entry")}"')
                self.json.classes("w-full mono")
                self.message = ui.element("div")
                with line():
                    button(self.t("Save entry"), self._save, "main")

    def _box(self, place: tuple[str, ...]) -> None:
        key, value = place[-1], value_at(self.entry, place)
        box: Any
        if key in ("formatting", "ranking"):
            known = FORMATS.names() if key == "formatting" else (True, False)
            default = "alpaca" if key == "formatting" else "false"
            options = {None: f"({default})"} | {choice: str(choice).lower() for choice in known}
            box = ui.select(options, label=key, value=value if value in known else None)
        elif key == "num_samples":
            box = ui.number(key, value=value if isinstance(value, int) else None, min=1, precision=0)
        else:
            box = ui.input(key, value=_shown(value), placeholder=self._default(place))
            box.props("debounce=250 stack-label")
        box.props("outlined dense options-dense").classes("w-full")
        if place[0] != "tags":
            box.props["hint"] = self.t(HINTS[key])
        box.on_value_change(partial(self._from_box, place))
        self.boxes[place] = box

    def _default(self, place: tuple[str, ...]) -> str:
        formatting = self.entry.get("formatting")
        tags = FORMATS.get(formatting).tags if formatting in FORMATS.names() else TAGS
        defaults = {"columns": COLUMNS, "tags": tags}.get(place[0], {"split": "train"})
        return defaults.get(place[-1]) or ""

    def _from_box(self, place: tuple[str, ...], event: Any) -> None:
        if self.quiet:
            return
        value = int(event.value) if place[-1] == "num_samples" and event.value else event.value
        self.entry = with_value(self.entry, place, value.strip() if isinstance(value, str) else value)
        self.quiet = True
        self.json.value = _written(self.entry)
        self.quiet = False
        self._check()

    def _from_json(self, event: Any) -> None:
        if self.quiet:
            return
        try:
            entry = json.loads(event.value or "")
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            self.entry, self.quiet = entry, True
            for place, box in self.boxes.items():
                value = value_at(entry, place)
                if isinstance(box, ui.select):
                    box.value = value if value in box.options else None
                elif isinstance(box, ui.number):
                    box.value = value if isinstance(value, int) else None
                else:
                    box.value = _shown(value)
            self.quiet = False
        self._check()

    def _show_result(self, work: Callable[[], Any], success: str) -> None:
        self.message.clear()
        with self.message:
            try:
                work()
                text(success, "good")
            except SartorError as error:
                show_error(self.t, error)

    def _check(self) -> None:
        self._show_result(lambda: parsed(self.workspace, self.name, self.json.value), self.t("The entry is valid."))

    def _save(self) -> None:
        def write() -> None:
            write_entry(self.workspace.data, self.name, parsed(self.workspace, self.name, self.json.value))

        self._show_result(write, self.t("Saved."))


def _written(entry: Any) -> str:
    return json.dumps(entry, ensure_ascii=False, indent=2)


def _shown(value: Any) -> str:
    return "" if value is None else str(value)
