"""The page `/dataset/NAME`: its rows, their labels, a check, and the registry entry; rows can be edited."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from sartor.base.errors import DataError, SartorError
from sartor.base.i18n import tr
from sartor.base.reasons import fix_of, reason_of
from sartor.base.types import Skipped
from sartor.data.dataset_info import REGISTRY, read_registry
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
from sartor.web.reader import Reader
from sartor.web.row_texts import changed, leaves
from sartor.web.shown import ShownDataset, ShownRow
from sartor.web.value_names import FIELDS
from sartor.web.virtual_list import VirtualList
from sartor.web.workspace import Workspace

VIEWS = {"rows": tr("Rows"), "labels": tr("Labels"), "check": tr("Check"), "entry": tr("Entry")}
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


def add_to(workspace: Workspace, reader: Reader) -> None:

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
                loaded = await run_in_thread(partial(reader.call, "dataset", name, name=name))
                place.clear()
                with place:
                    if isinstance(loaded, SartorError):
                        show_error(t, loaded)
                        if isinstance(loaded, DataError):
                            EntryEditor(workspace, t, name).draw()
                        return
                    await _view(workspace, reader, t, loaded, view, row)
                with title:
                    link(t("Train on it"), f"/train?dataset={quote(name)}", "btn main")

            ui.timer(0.01, fill, once=True)


def known(workspace: Workspace, name: str) -> bool:
    """Whether the dataset exists; true if the registry cannot be read, to show that error."""
    try:
        return name in read_registry(workspace.data).entries
    except DataError:
        return (workspace.data / REGISTRY).exists()


async def _view(workspace: Workspace, reader: Reader, t: Translator, shown: ShownDataset, view: str, row: int) -> None:
    match view:
        case "labels":
            await LabelsView(reader, t, shown, row).draw()
        case "check":
            LintView(reader, t, shown).draw()
        case "entry":
            EntryEditor(workspace, t, shown.name).draw()
        case _:
            await DatasetView(reader, t, shown).draw()


def _tabs(t: Translator, name: str, current: str) -> None:
    with ui.element("nav").classes("tabs"):
        for view, title in VIEWS.items():
            made = link(t(title), f"/dataset/{quote(name)}?view={view}", "")
            if view == current:
                made.props("aria-current=page")


class DatasetView:
    """The ledger, and all rows to search, edit or delete; the changes are saved as a new version."""

    def __init__(self, reader: Reader, t: Translator, shown: ShownDataset) -> None:
        self.reader, self.t, self.name, self.shown = reader, t, shown.name, shown
        self.found: Sequence[int] = range(shown.usable)
        self.fetched: dict[int, ShownRow] = {}
        """The rows in sight, by their position in `found`."""
        self.changes: dict[str, Any] = {}

    async def draw(self) -> None:
        self._ledger()
        self.refused = ui.element("div").classes("w-full")
        self.pending = ui.element("div")
        with card("flush"):
            with line().style("padding:12px 14px 0"):
                ui.input(self.t("Search questions and answers"), on_change=self._search).props(
                    "outlined dense clearable debounce=300"
                ).classes("grow")
                self.count = text("", "soft num")
            if not self.shown.usable:
                empty(self.t("No usable rows"), self.t("The reasons are listed above. Fix the rows or the entry."))
            self.rows = VirtualList(len(self.found), self._row, self._fetch)
        self._update_count()
        await self.rows.load(len(self.found))
        summary = self.shown.imported
        if summary and summary.refused > summary.repaired:
            with self.refused, card():
                await RefusedRows(self.reader, self.t, self.name, summary).draw()

    async def _fetch(self, positions: range) -> None:
        wanted = [self.found[position] for position in positions]
        rows = await self._call("rows", positions=wanted)
        self.fetched = {} if isinstance(rows, SartorError) else dict(zip(positions, rows, strict=False))

    async def _call(self, call: str, **arguments: Any) -> Any:
        return await run_in_thread(partial(self.reader.call, call, self.name, name=self.name, **arguments))

    def _update_count(self) -> None:
        self.count.set_content(
            self.t("{found} of {all} rows", found=f"{len(self.found):,}", all=f"{self.shown.usable:,}")
        )

    async def _search(self, event: Any) -> None:
        query = event.value or ""
        found = await self._call("find", query=query) if query else range(self.shown.usable)
        if not isinstance(found, SartorError):
            self.found = found
            self._update_count()
            await self.rows.load(len(found))

    def _row(self, position: int) -> None:
        """One row of the list."""
        row = self.fetched.get(position)
        if row is None:  # the list was read again meanwhile
            return
        origin, shown = row.origin, row.turns
        state = self.changes.get(origin.id, self)
        made = ui.element("button").classes("list-row").props("type=button")
        made.on("click", partial(self.open, origin.id, origin.row))
        with made:
            text(origin.row, "num soft", tag="span")
            questions = [words for role, words in shown if role == "user"] or [shown[0][1]]
            text(questions[-1][:400], "one-line" + (" dropped" if state is None else ""), tag="span")
            text(shown[-1][1][:400] if len(shown) > 1 else "", "one-line soft", tag="span")

    def _ledger(self) -> None:
        ledger, t = self.shown.ledger, self.t
        with card():
            facts(
                [
                    (t("rows read"), f"{ledger.read:,}"),
                    (t("usable"), f"{ledger.training:,}"),
                    (t("skipped"), f"{self.shown.skipped_count:,}"),
                    (t("left out on request"), f"{ledger.left_out:,}"),
                    (t("Encoding"), ", ".join(self.shown.encodings)),
                ]
            )
            for group in self.shown.skipped:
                reason = t(reason_of(group.code, group.first[0].params))
                with ui.expansion(f"{group.count} × {reason}").classes("w-full"):
                    self._skipped(group.first)
            if summary := self.shown.imported:
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

    def _skipped(self, rows: Sequence[Skipped]) -> None:
        t = self.t
        lines: list[list[Any]] = [
            [
                str(s.origin),
                t(reason_of(s.code, s.params)),
                t(fix_of(s.code, s.params)),
                partial(button, t("Edit"), partial(self.open, s.origin.id, None), "quiet"),
            ]
            for s in rows
        ]
        table([(t("Line"), ""), (t("Problem"), "wide"), (t("Fix"), "wide"), ("", "")], lines)

    async def open(self, row_id: str, number: int | None) -> None:
        """A dialog to edit the texts of a row; `number` is that of a usable one."""
        current = await self._call("value", row_id=row_id)
        if isinstance(current, SartorError):
            show_error(self.t, current)
            return
        raw = self.changes.get(row_id) or current
        with self.pending, ui.dialog() as dialog:
            dialog.on("hide", dialog.delete)
            with ui.element("div").classes("card").style("width:min(760px,94vw);max-width:94vw"):
                self._window(dialog, row_id, number, raw)
        dialog.open()

    def _window(self, dialog: ui.dialog, row_id: str, number: int | None, raw: Any) -> None:
        t = self.t
        with line("spread"):
            text(row_id, tag="b")
            if number is not None:
                link(t("Show labels"), f"/dataset/{quote(self.name)}?view=labels&row={number}", "btn quiet")
        inputs: dict[tuple[Any, ...], ui.textarea] = {}
        for place, words in leaves(raw):
            if place[-1] in ("from", "role") and len(place) > 1:
                continue  # the speaker is the label of the text
            label = self._label(raw, place)
            inputs[place] = ui.textarea(label, value=words).props("outlined autogrow dense").classes("w-full")

        async def keep(value: Any) -> None:
            self.changes[row_id] = value
            dialog.close()
            self._pending()
            await self.rows.load(len(self.found))

        async def change() -> None:
            await keep(changed(raw, {place: box.value for place, box in inputs.items()}))

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
        new = await self._call("save_version", changes=dict(self.changes))
        if isinstance(new, SartorError):
            with self.pending:
                show_error(self.t, new)
            return
        ui.navigate.to(f"/dataset/{quote(new)}")
