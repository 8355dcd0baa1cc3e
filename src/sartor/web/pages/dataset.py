"""The page `/dataset/NAME`: its rows, what is learned of each, what a check finds, its entry; rows can be mended."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from sartor import api
from sartor.base.errors import DataError, SartorError
from sartor.base.reasons import fix_of, reason_of
from sartor.base.types import Skipped
from sartor.data.dataset_info import REGISTRY, read_registry
from sartor.data.load import Loaded
from sartor.web.cache import Cache, find, turns
from sartor.web.components import (
    button,
    card,
    empty,
    facts,
    heading,
    line,
    link,
    page_frame,
    run_in_thread,
    show_error,
    table,
    text,
)
from sartor.web.i18n import Words
from sartor.web.pages.labels import LabelsView
from sartor.web.pages.lint import LintView
from sartor.web.pages.registry_entry import EntryEditor
from sartor.web.virtual_list import VirtualList
from sartor.web.workspace import Workspace

VIEWS = ("rows", "labels", "check", "entry")
MAX_SKIPPED = 200
FIELD_OF = {
    "human": "question",
    "user": "question",
    "instruction": "question",
    "gpt": "answer",
    "assistant": "answer",
    "output": "answer",
    "system": "system",
    "input": "input",
}
"""Who speaks, or the column, as the page calls it."""


def add_to(desk: Workspace) -> None:
    shelf = Cache(desk)

    @ui.page("/dataset/{name}", response_timeout=30)
    async def page(request: Request, name: str, view: str = "rows", row: int = 0) -> None:
        with page_frame(request, "data", name) as t:
            title = line("spread")
            with title:
                heading(name)
            if not await run_in_thread(partial(known, desk, name)):
                with card(), empty(t("dataset.gone"), t("dataset.gone_next")):
                    link(t("nav.data"), "/data", "btn main")
                return
            _tabs(t, name, view)
            place = ui.element("div").classes("flex flex-col gap-5 w-full")
            with place, line("soft"):
                ui.spinner(size="1.3em")
                text(t("dataset.reading"))

            async def fill() -> None:
                """After the page is there: a large file takes its time."""
                loaded = await run_in_thread(partial(shelf.dataset, name))
                place.clear()
                with place:
                    if isinstance(loaded, SartorError):
                        show_error(t, loaded)
                        if isinstance(loaded, DataError):
                            EntryEditor(desk, t, name).draw()
                        return
                    await _view(desk, shelf, t, name, loaded, view, row)
                with title:
                    link(t("data.train_on"), f"/train?dataset={quote(name)}", "btn main")

            ui.timer(0.01, fill, once=True)


def known(desk: Workspace, name: str) -> bool:
    """Whether there is such a dataset; a registry that cannot be read may hold it."""
    try:
        return name in read_registry(desk.data).entries
    except DataError:
        return (desk.data / REGISTRY).exists()


async def _view(desk: Workspace, shelf: Cache, t: Words, name: str, loaded: Loaded, view: str, row: int) -> None:
    match view:
        case "labels":
            await LabelsView(shelf, t, loaded, row).draw()
        case "check":
            LintView(desk, shelf, t, name, loaded).draw()
        case "entry":
            EntryEditor(desk, t, name).draw()
        case _:
            DatasetView(desk, t, name, loaded).draw()


def _tabs(t: Words, name: str, here: str) -> None:
    with ui.element("nav").classes("tabs"):
        for view in VIEWS:
            made = link(t(f"dataset.{view}"), f"/dataset/{quote(name)}?view={view}", "")
            if view == here:
                made.props("aria-current=page")


class DatasetView:
    """The ledger, and all rows: searched, scrolled, opened, changed or dropped, and kept as a new version."""

    def __init__(self, desk: Workspace, t: Words, name: str, loaded: Loaded) -> None:
        self.desk, self.t, self.name, self.loaded = desk, t, name, loaded
        self.found = find(loaded, "")
        self.changes: dict[str, Any] = {}

    def draw(self) -> None:
        self._ledger()
        self.pending = ui.element("div")
        with card("flush"):
            with line().style("padding:12px 14px 0"):
                ui.input(self.t("dataset.search"), on_change=self._search).props(
                    "outlined dense clearable debounce=300"
                ).classes("grow")
                self.count = text("", "soft num")
            if not self.loaded.examples:
                empty(self.t("dataset.no_rows"), self.t("dataset.no_rows_next"))
            self.rows = VirtualList(len(self.found), self._row)
        self._counted()

    def _counted(self) -> None:
        self.count.set_content(
            self.t("dataset.count", found=f"{len(self.found):,}", all=f"{len(self.loaded.examples):,}")
        )

    async def _search(self, event: Any) -> None:
        found = await run_in_thread(partial(find, self.loaded, event.value or ""))
        if not isinstance(found, SartorError):
            self.found = found
            self.rows.reset(len(found))
            self._counted()

    def _row(self, position: int) -> None:
        """One line of the list."""
        index = self.found[position]
        example = self.loaded.examples[index]
        said = turns(example)
        state = self.changes.get(example.origin.id, self)
        made = ui.element("button").classes("list-row").props("type=button")
        made.on("click", partial(self.open, example.origin.id, index))
        with made:
            text(example.origin.row, "num soft", tag="span")
            asked = [words for role, words in said if role == "user"] or [said[0][1]]
            text(asked[-1][:400], "one-line" + (" dropped" if state is None else ""), tag="span")
            text(said[-1][1][:400] if len(said) > 1 else "", "one-line soft", tag="span")

    def _ledger(self) -> None:
        ledger, t = self.loaded.ledger, self.t
        with card():
            facts(
                [
                    (t("dataset.read"), f"{ledger.read:,}"),
                    (t("dataset.usable"), f"{ledger.training:,}"),
                    (t("dataset.skipped"), f"{len(ledger.skipped):,}"),
                    (t("dataset.left_out"), f"{ledger.left_out:,}"),
                    (t("data.encoding"), ", ".join(dict.fromkeys(str(f.encoding or "–") for f in self.loaded.files))),
                ]
            )
            by_code: dict[str, list[Skipped]] = {}
            for skipped in ledger.skipped:
                by_code.setdefault(skipped.code, []).append(skipped)
            for code, rows in by_code.items():
                reason = reason_of(code, rows[0].params).render(t.lang)
                with ui.expansion(f"{len(rows)} × {reason}").classes("w-full"):
                    self._skipped(rows)
            for note in ledger.notes:
                text(t.note(note), "soft small")

    def _skipped(self, rows: list[Skipped]) -> None:
        t = self.t
        lines: list[list[Any]] = [
            [
                str(s.origin),
                reason_of(s.code, s.params).render(t.lang),
                fix_of(s.code, s.params).render(t.lang),
                partial(button, t("data.mend"), partial(self.open, s.origin.id, None), "quiet"),
            ]
            for s in rows[:MAX_SKIPPED]
        ]
        table([(t("data.line"), ""), (t("data.reason"), "wide"), (t("data.fix"), "wide"), ("", "")], lines)

    async def open(self, row_id: str, index: int | None) -> None:
        """A row in a window: as it is read, and its texts to change."""
        stand = await run_in_thread(partial(api.read_rows, self.name, self.desk.data))
        if isinstance(stand, SartorError):
            show_error(self.t, stand)
            return
        raw = self.changes.get(row_id) or next((value for origin, value in stand if origin.id == row_id), None)
        with self.pending, ui.dialog() as dialog:
            dialog.on("hide", dialog.delete)
            with ui.element("div").classes("card").style("width:min(760px,94vw);max-width:94vw"):
                self._window(dialog, row_id, index, raw)
        dialog.open()

    def _window(self, dialog: ui.dialog, row_id: str, index: int | None, raw: Any) -> None:
        t = self.t
        with line("spread"):
            text(row_id, tag="b")
            if index is not None:
                number = self.loaded.examples[index].origin.row
                link(t("dataset.labels"), f"/dataset/{quote(self.name)}?view=labels&row={number}", "btn quiet")
        inputs: dict[tuple[Any, ...], ui.textarea] = {}
        for place, words in leaves(raw):
            if place[-1] in ("from", "role") and len(place) > 1:
                continue  # who speaks is the label of what is said
            label = self._label(raw, place)
            inputs[place] = ui.textarea(label, value=words).props("outlined autogrow dense").classes("w-full")

        def keep(value: Any) -> None:
            self.changes[row_id] = value
            dialog.close()
            self._pending()
            self.rows.reset(len(self.found))

        def change() -> None:
            keep(changed(raw, {place: box.value for place, box in inputs.items()}))

        with line():
            button(t("dataset.keep_change"), change, "main")
            button(t("dataset.drop"), partial(keep, None), "danger")
            button(t("app.cancel"), dialog.close)

    def _label(self, raw: Any, place: tuple[Any, ...]) -> str:
        """Question, answer or system text where the place says so, else the place itself."""
        turn = raw
        for part in place[:-1]:
            turn = turn[part]
        speaks = turn.get("from", turn.get("role")) if isinstance(turn, dict) and len(place) > 1 else place[-1]
        field = FIELD_OF.get(str(speaks))
        return self.t(f"data.field_{field}") if field else ".".join(str(part) for part in place)

    def _pending(self) -> None:
        self.pending.clear()
        with self.pending, ui.element("div").classes("notice warn-n row-line spread"):
            text(self.t("dataset.pending", count=len(self.changes)))
            button(self.t("dataset.save_version"), self._save, "main")

    async def _save(self) -> None:
        new = await run_in_thread(partial(api.save_version, self.name, self.desk.data, changes=dict(self.changes)))
        if isinstance(new, SartorError):
            with self.pending:
                show_error(self.t, new)
            return
        ui.navigate.to(f"/dataset/{quote(new)}")


def leaves(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], str]]:
    """(place, text) of every text in a row; what is missing counts as an empty text."""
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in leaves(part, (*place, key))]
    if isinstance(value, list):
        return [leaf for key, part in enumerate(value) for leaf in leaves(part, (*place, key))]
    return [(place, value or "")] if isinstance(value, str) or value is None else []


def changed(value: Any, texts: dict[tuple[Any, ...], str], place: tuple[Any, ...] = ()) -> Any:
    """The row with these texts at their places; what was missing and stays empty stays missing."""
    if isinstance(value, dict):
        return {key: changed(part, texts, (*place, key)) for key, part in value.items()}
    if isinstance(value, list):
        return [changed(part, texts, (*place, key)) for key, part in enumerate(value)]
    if place in texts and not (value is None and not texts[place]):
        return texts[place]
    return value
