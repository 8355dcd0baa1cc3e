"""The page `/dataset/NAME`: its rows, their labels, a check, and the registry entry; rows can be edited."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from sartor import api
from sartor.base.errors import DataError, SartorError
from sartor.base.i18n import tr
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
    note_text,
    page_frame,
    run_in_thread,
    show_error,
    table,
    text,
)
from sartor.web.i18n import Translator
from sartor.web.pages.labels import LabelsView
from sartor.web.pages.lint import LintView
from sartor.web.pages.refused_rows import RefusedRows
from sartor.web.pages.registry_entry import EntryEditor
from sartor.web.row_texts import changed, leaves
from sartor.web.value_names import FIELDS
from sartor.web.virtual_list import VirtualList
from sartor.web.workspace import Workspace

VIEWS = {"rows": tr("Rows"), "labels": tr("Labels"), "check": tr("Check"), "entry": tr("Entry")}
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
"""The field that a role or column is shown as."""


def add_to(workspace: Workspace) -> None:
    cache = Cache(workspace)

    @ui.page("/dataset/{name}", response_timeout=30)
    async def page(request: Request, name: str, view: str = "rows", row: int = 0) -> None:
        with page_frame(request, "data", name) as t:
            title = line("spread")
            with title:
                heading(name)
            if not await run_in_thread(partial(known, workspace, name)):
                with card(), empty(t("Dataset not found"), t("Import its file, or choose an existing dataset.")):
                    link(t("Data"), "/data", "btn main")
                return
            _tabs(t, name, view)
            place = ui.element("div").classes("flex flex-col gap-5 w-full")
            with place, line("soft"):
                ui.spinner(size="1.3em")
                text(t("Reading…"))

            async def fill() -> None:
                """Runs after the page is shown: a large file takes a while to load."""
                loaded = await run_in_thread(partial(cache.dataset, name))
                place.clear()
                with place:
                    if isinstance(loaded, SartorError):
                        show_error(t, loaded)
                        if isinstance(loaded, DataError):
                            EntryEditor(workspace, t, name).draw()
                        return
                    await _view(workspace, cache, t, name, loaded, view, row)
                with title:
                    link(t("Train on it"), f"/train?dataset={quote(name)}", "btn main")

            ui.timer(0.01, fill, once=True)


def known(workspace: Workspace, name: str) -> bool:
    """Whether the dataset exists; true if the registry cannot be read, to show that error."""
    try:
        return name in read_registry(workspace.data).entries
    except DataError:
        return (workspace.data / REGISTRY).exists()


async def _view(
    workspace: Workspace, cache: Cache, t: Translator, name: str, loaded: Loaded, view: str, row: int
) -> None:
    match view:
        case "labels":
            await LabelsView(cache, t, loaded, row).draw()
        case "check":
            LintView(workspace, cache, t, name, loaded).draw()
        case "entry":
            EntryEditor(workspace, t, name).draw()
        case _:
            view_of_rows = DatasetView(workspace, t, name, loaded)
            view_of_rows.draw()
            await view_of_rows.draw_refused()


def _tabs(t: Translator, name: str, current: str) -> None:
    with ui.element("nav").classes("tabs"):
        for view, title in VIEWS.items():
            made = link(t(title), f"/dataset/{quote(name)}?view={view}", "")
            if view == current:
                made.props("aria-current=page")


class DatasetView:
    """The ledger, and all rows to search, edit or delete; the changes are saved as a new version."""

    def __init__(self, workspace: Workspace, t: Translator, name: str, loaded: Loaded) -> None:
        self.workspace, self.t, self.name, self.loaded = workspace, t, name, loaded
        self.found = find(loaded, "")
        self.changes: dict[str, Any] = {}

    def draw(self) -> None:
        self._ledger()
        self.refused = ui.element("div").classes("w-full")
        self.pending = ui.element("div")
        with card("flush"):
            with line().style("padding:12px 14px 0"):
                ui.input(self.t("Search questions and answers"), on_change=self._search).props(
                    "outlined dense clearable debounce=300"
                ).classes("grow")
                self.count = text("", "soft num")
            if not self.loaded.examples:
                empty(self.t("No usable rows"), self.t("The reasons are listed above. Fix the rows or the entry."))
            self.rows = VirtualList(len(self.found), self._row)
        self._update_count()

    async def draw_refused(self) -> None:
        """The rows that the import refused, between the ledger and the rows."""
        summary = self.loaded.imported
        if summary and summary.refused > summary.repaired:
            with self.refused, card():
                await RefusedRows(self.workspace, self.t, self.name, summary).draw()

    def _update_count(self) -> None:
        self.count.set_content(
            self.t("{found} of {all} rows", found=f"{len(self.found):,}", all=f"{len(self.loaded.examples):,}")
        )

    async def _search(self, event: Any) -> None:
        found = await run_in_thread(partial(find, self.loaded, event.value or ""))
        if not isinstance(found, SartorError):
            self.found = found
            self.rows.reset(len(found))
            self._update_count()

    def _row(self, position: int) -> None:
        """One row of the list."""
        index = self.found[position]
        example = self.loaded.examples[index]
        shown = turns(example)
        state = self.changes.get(example.origin.id, self)
        made = ui.element("button").classes("list-row").props("type=button")
        made.on("click", partial(self.open, example.origin.id, index))
        with made:
            text(example.origin.row, "num soft", tag="span")
            questions = [words for role, words in shown if role == "user"] or [shown[0][1]]
            text(questions[-1][:400], "one-line" + (" dropped" if state is None else ""), tag="span")
            text(shown[-1][1][:400] if len(shown) > 1 else "", "one-line soft", tag="span")

    def _ledger(self) -> None:
        ledger, t = self.loaded.ledger, self.t
        with card():
            facts(
                [
                    (t("rows read"), f"{ledger.read:,}"),
                    (t("usable"), f"{ledger.training:,}"),
                    (t("skipped"), f"{len(ledger.skipped):,}"),
                    (t("left out on request"), f"{ledger.left_out:,}"),
                    (t("Encoding"), ", ".join(dict.fromkeys(str(f.encoding or "–") for f in self.loaded.files))),
                ]
            )
            by_code: dict[str, list[Skipped]] = {}
            for skipped in ledger.skipped:
                by_code.setdefault(skipped.code, []).append(skipped)
            for code, rows in by_code.items():
                reason = t(reason_of(code, rows[0].params))
                with ui.expansion(f"{len(rows)} × {reason}").classes("w-full"):
                    self._skipped(rows)
            if summary := self.loaded.imported:
                facts(
                    [
                        (t("imported from"), summary.file),
                        (t("rows read at import"), f"{summary.read:,}"),
                        (t("kept"), f"{summary.kept:,}"),
                        (t("refused"), f"{summary.refused:,}"),
                        (t("repaired since"), f"{summary.repaired:,}"),
                    ]
                )
            for note in ledger.notes:
                text(note_text(t, note), "soft small")

    def _skipped(self, rows: list[Skipped]) -> None:
        t = self.t
        lines: list[list[Any]] = [
            [
                str(s.origin),
                t(reason_of(s.code, s.params)),
                t(fix_of(s.code, s.params)),
                partial(button, t("Edit"), partial(self.open, s.origin.id, None), "quiet"),
            ]
            for s in rows[:MAX_SKIPPED]
        ]
        table([(t("Line"), ""), (t("Problem"), "wide"), (t("Fix"), "wide"), ("", "")], lines)

    async def open(self, row_id: str, index: int | None) -> None:
        """A dialog to edit the texts of a row."""
        current = await run_in_thread(partial(api.read_rows, self.name, self.workspace.data))
        if isinstance(current, SartorError):
            show_error(self.t, current)
            return
        raw = self.changes.get(row_id) or next((value for origin, value in current if origin.id == row_id), None)
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
                link(t("Show labels"), f"/dataset/{quote(self.name)}?view=labels&row={number}", "btn quiet")
        inputs: dict[tuple[Any, ...], ui.textarea] = {}
        for place, words in leaves(raw):
            if place[-1] in ("from", "role") and len(place) > 1:
                continue  # the speaker is the label of the text
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
            button(t("Apply change"), change, "main")
            button(t("Delete row"), partial(keep, None), "danger")
            button(t("Cancel"), dialog.close)

    def _label(self, raw: Any, place: tuple[Any, ...]) -> str:
        """Question, answer or system prompt if the path says so, else the path itself."""
        turn = raw
        for part in place[:-1]:
            turn = turn[part]
        speaks = turn.get("from", turn.get("role")) if isinstance(turn, dict) and len(place) > 1 else place[-1]
        field = FIELD_OF.get(str(speaks))
        return self.t(FIELDS[field]) if field else ".".join(str(part) for part in place)

    def _pending(self) -> None:
        self.pending.clear()
        with self.pending, ui.element("div").classes("notice warn-n row-line spread"):
            text(
                self.t.plural(
                    "{count} row edited or deleted. The dataset itself is unchanged.",
                    "{count} rows edited or deleted. The dataset itself is unchanged.",
                    count=len(self.changes),
                )
            )
            button(self.t("Save as new version"), self._save, "main")

    async def _save(self) -> None:
        new = await run_in_thread(partial(api.save_version, self.name, self.workspace.data, changes=dict(self.changes)))
        if isinstance(new, SartorError):
            with self.pending:
                show_error(self.t, new)
            return
        ui.navigate.to(f"/dataset/{quote(new)}")
