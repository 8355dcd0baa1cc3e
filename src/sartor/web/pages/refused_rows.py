"""The rows that the import of a dataset refused: each with its reason, and a dialog to repair it into a new version."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from sartor.base.errors import SartorError
from sartor.data.import_record import ImportSummary, RefusedRow
from sartor.web.components import button, line, run_in_thread, table, text
from sartor.web.i18n import Translator
from sartor.web.reader import Reader
from sartor.web.row_texts import changed, leaves
from sartor.web.shown import JsonText
from sartor.web.value_names import FIELDS

MAX_SHOWN = 200


class RefusedRows:
    """A table of the refused rows that are not repaired yet."""

    def __init__(self, reader: Reader, t: Translator, name: str, summary: ImportSummary) -> None:
        self.reader, self.t, self.name, self.summary = reader, t, name, summary

    async def draw(self) -> None:
        t = self.t
        found = await self._call("refused")
        if isinstance(found, SartorError):
            text(f"{t(found.what)} {t(found.fix)}", "notice warn-n")
            return
        open_rows = [(place, row) for place, row in enumerate(found) if not row.repaired]
        lines: list[list[Any]] = [
            [
                str(row.origin(self.name)),
                t(row.reason),
                t(row.fix),
                partial(button, t("Edit"), partial(self._edit, place, row), "quiet"),
            ]
            for place, row in open_rows[:MAX_SHOWN]
        ]
        if lines:
            table([(t("Line"), ""), (t("Problem"), "wide"), (t("Fix"), "wide"), ("", "")], lines)
        if len(open_rows) > MAX_SHOWN:
            text(t("and {count} more", count=len(open_rows) - MAX_SHOWN), "soft small")

    async def _call(self, call: str, **arguments: Any) -> Any:
        return await run_in_thread(partial(self.reader.call, call, self.name, name=self.name, **arguments))

    def _edit(self, place: int, row: RefusedRow) -> None:
        """A dialog with the row's texts, or with its text as a whole where it could not be read."""
        t = self.t
        inputs: dict[tuple[Any, ...], ui.textarea] = {}
        with ui.dialog() as dialog, ui.element("div").classes("card").style("width:min(640px,92vw)"):
            text(t("Edit row {row}", row=row.row), tag="h2")
            if row.text is not None and self.summary.columns:
                text(row.text[:2000], "raw small")
            value = row.data if row.text is None else dict.fromkeys(self.summary.columns.values(), "")
            fields = {column: field for field, column in self.summary.columns.items()}
            for path, words in leaves(value):
                label = t(FIELDS[fields[path[0]]]) if path[0] in fields else ".".join(map(str, path))
                inputs[path] = ui.textarea(label, value=words).props("outlined autogrow").classes("w-full")
            whole = None
            if not inputs:
                whole = ui.textarea("JSON", value=row.text or "").props("outlined autogrow").classes("w-full mono")

            async def save() -> None:
                texts = {path: box.value or "" for path, box in inputs.items()}
                repaired = JsonText(whole.value or "") if whole else changed(value, texts)
                new = await self._call("save_version", changes={}, repaired={place: repaired})
                if isinstance(new, SartorError):
                    ui.notify(t(new.what), type="negative")
                    return
                ui.navigate.to(f"/dataset/{quote(new)}")

            with line():
                button(t("Save as new version"), save, "main")
                button(t("Cancel"), dialog.close)
        dialog.open()
