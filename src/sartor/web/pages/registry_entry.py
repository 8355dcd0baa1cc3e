"""The entry view of the dataset page: the dataset's entry in dataset_info.json as a form and as JSON, kept equal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nicegui import ui

from sartor.base.errors import DataError, SartorError
from sartor.data.dataset_info import parse_entry, read_registry, write_entry
from sartor.data.dataset_spec import COLUMNS, TAGS
from sartor.data.formats import FORMATS
from sartor.web.components import button, card, line, show_error, text
from sartor.web.i18n import Words
from sartor.web.workspace import Workspace

GENERAL = ("file_name", "formatting", "encoding", "ranking", "split", "subset", "num_samples")
MEDIA = ("images", "videos", "audios")
"""Columns that no dataset may have yet."""
PLACES = (
    *((key,) for key in GENERAL),
    *(("columns", name) for name in COLUMNS if name not in MEDIA),
    *(("tags", name) for name in TAGS),
)
"""Every box of the form: where its value stands in the entry."""


def value_at(entry: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    """What stands there; None where nothing does."""
    found: Any = entry
    for key in place:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def with_value(entry: Mapping[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The entry with a value there; nothing takes the key out, and a part that is left empty with it."""
    key, rest = place[0], place[1:]
    if rest:
        inner = entry.get(key)
        value = with_value(inner if isinstance(inner, Mapping) else {}, rest, value) or None
    if value is None or value == "":
        return {name: old for name, old in entry.items() if name != key}
    return {**entry, key: value}


def parsed(desk: Workspace, name: str, shown: str) -> dict[str, Any]:
    """The entry that a person typed. Raises: DataError for broken JSON, a bad entry, a file outside of the folder."""
    try:
        entry = json.loads(shown or "")
    except ValueError as error:
        raise DataError(f"The JSON is broken: {error}.", name, "Mend that place.") from None
    parse_entry(name, entry, desk.data / "dataset_info.json")
    if entry.get("file_name"):
        desk.resolve_inside(str(entry["file_name"]), desk.data)
    return dict(entry)


class EntryEditor:
    """`asked` is the truth as far as it is JSON; boxes and JSON show it, and each changes it."""

    def __init__(self, desk: Workspace, t: Words, name: str) -> None:
        self.desk, self.t, self.name = desk, t, name
        self.asked: dict[str, Any] = {}
        self.boxes: dict[tuple[str, ...], Any] = {}
        self.quiet = False
        """While one side is set from the other."""

    def draw(self) -> None:
        try:
            entry = read_registry(self.desk.data).entries.get(self.name)
        except DataError:
            return  # it has been said
        if entry is None:
            return
        self.asked = dict(entry) if isinstance(entry, dict) else {}
        with ui.element("div").classes("two"):
            with ui.element("div").classes("flex flex-col gap-4"):
                with card(), ui.element("div").classes("fields"):
                    for key in GENERAL:
                        self._box((key,))
                with card("flush"):
                    for part in ("columns", "tags"):
                        with (
                            ui.expansion(self.t(f"dataset.entry_{part}"), value=part == "columns").classes("w-full"),
                            ui.element("div").classes("fields").style("padding:4px 4px 12px"),
                        ):
                            for place in PLACES:
                                if place[0] == part:
                                    self._box(place)
            with card():
                text(self.t("dataset.entry_lead"), "soft")
                self.json = ui.textarea(value=_written(entry), on_change=self._from_json)
                self.json.props(f'outlined autogrow debounce=200 aria-label="{self.t("dataset.entry")}"')
                self.json.classes("w-full mono")
                self.said = ui.element("div")
                with line():
                    button(self.t("dataset.save_entry"), self._save, "main")

    def _box(self, place: tuple[str, ...]) -> None:
        key, value = place[-1], value_at(self.asked, place)
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
            box.props["hint"] = self.t(f"dataset.entry_{key}")
        box.on_value_change(partial(self._from_box, place))
        self.boxes[place] = box

    def _default(self, place: tuple[str, ...]) -> str:
        formatting = self.asked.get("formatting")
        tags = FORMATS.get(formatting).tags if formatting in FORMATS.names() else TAGS
        defaults = {"columns": COLUMNS, "tags": tags}.get(place[0], {"split": "train"})
        return defaults.get(place[-1]) or ""

    def _from_box(self, place: tuple[str, ...], event: Any) -> None:
        if self.quiet:
            return
        value = int(event.value) if place[-1] == "num_samples" and event.value else event.value
        self.asked = with_value(self.asked, place, value.strip() if isinstance(value, str) else value)
        self.quiet = True
        self.json.value = _written(self.asked)
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
            self.asked, self.quiet = entry, True
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

    def _tell(self, work: Callable[[], Any], good: str) -> None:
        self.said.clear()
        with self.said:
            try:
                work()
                text(good, "good")
            except SartorError as error:
                show_error(self.t, error)

    def _check(self) -> None:
        self._tell(lambda: parsed(self.desk, self.name, self.json.value), self.t("dataset.entry_good"))

    def _save(self) -> None:
        def write() -> None:
            write_entry(self.desk.data, self.name, parsed(self.desk, self.name, self.json.value))

        self._tell(write, self.t("dataset.entry_saved"))


def _written(entry: Any) -> str:
    return json.dumps(entry, ensure_ascii=False, indent=2)


def _shown(value: Any) -> str:
    return "" if value is None else str(value)
