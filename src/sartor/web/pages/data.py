"""The page `/data`: preview and import a file, and list the datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from sartor.base.errors import DataError, SartorError
from sartor.base.files import atomic_write
from sartor.base.reasons import fix_of, reason_of
from sartor.data.dataset_info import read_registry
from sartor.data.existing_dataset import Existing
from sartor.data.import_file import FileInspection
from sartor.data.read_rows import columns_of
from sartor.data.sources import SOURCES
from sartor.data.sources.csv import DELIMITERS as CSV_DELIMITERS
from sartor.web.components import (
    button,
    card,
    empty,
    heading,
    line,
    link,
    page_frame,
    run_in_thread,
    show_error,
    size,
    table,
    text,
)
from sartor.web.i18n import Translator
from sartor.web.pages.refused_rows import RefusedRows
from sartor.web.reader import Reader
from sartor.web.shown import ReadingChoices
from sartor.web.value_names import FIELDS
from sartor.web.workspace import Workspace, dataset_name, readable

ENCODINGS = ("utf-8", "gb18030", "gbk", "big5", "shift_jis", "euc_jp", "euc_kr", "utf-16", "windows-1252", "latin-1")
DELIMITERS = {sign: sign if sign.isprintable() else repr(sign)[1:-1] for sign in CSV_DELIMITERS}


def add_to(workspace: Workspace, reader: Reader) -> None:

    @ui.page("/data")
    def page(request: Request) -> None:
        with page_frame(request, "data") as t:
            heading(
                t("Data"),
                t(
                    "Import questions and answers from any file. You see how the file is read before anything "
                    "is written, and every row that cannot be used is listed with the reason."
                ),
            )
            importing = ImportView(workspace, reader, t)
            importing.draw()
            importing.list = ui.element("div")
            importing.list_datasets()


class ImportView:
    """The import of one file: the choices, and a preview that follows them."""

    def __init__(self, workspace: Workspace, reader: Reader, t: Translator) -> None:
        self.workspace, self.reader, self.t = workspace, reader, t
        self.file = ""
        self.sheets: tuple[str, ...] = ()
        self.reading = ReadingChoices()
        self.name = ""
        self.list: ui.element | None = None

    def draw(self) -> None:
        t = self.t
        with card():
            with line("spread"):
                text(t("Import a file"), tag="h2")
                link(t("Questions from documents") + " →", "/generate", "")
            with ui.element("label").classes("drop"):
                ui.element("input").props(
                    f'type=file data-upload accept="{",".join(readable())}" aria-label="{t("Import a file")}"'
                )
                text(t("Drop a file here, or click to choose one"), tag="b")
                text(t("CSV, TSV, JSON, JSON Lines, Excel or Parquet, in any encoding"), "small")
                ui.element("div").props("id=upload-progress aria-live=polite").classes("num")
            files = self.workspace.tables()
            if files:
                ui.select(
                    files, label=t("or choose a file in the folder"), with_input=True, on_change=self._chosen
                ).props("outlined dense").classes("w-full")
            with ui.expansion(t("or paste a table or JSON")).classes("w-full"):
                pasted = (
                    ui.textarea(placeholder=t("question,answer — with column names in the first line"))
                    .props("outlined autogrow")
                    .classes("w-full mono")
                )
                button(t("Read"), lambda: self._pasted(pasted.value or ""))
            self.preview = ui.element("div").classes("flex flex-col gap-4 w-full")
        ui.on("sartor-uploaded", self._uploaded)

    async def _uploaded(self, event: Any) -> None:
        answer = event.args if isinstance(event.args, dict) else {}
        if "file" in answer:
            await self._take(str(answer["file"]))
            return
        self.preview.clear()
        with self.preview:
            show_error(self.t, DataError(str(answer.get("error", "")), answer.get("where", ""), answer.get("fix", "")))

    async def _pasted(self, words: str) -> None:
        """Save the pasted text as a file and preview that."""
        if words.strip():
            number = 1
            while (file := self.workspace.uploads / f"pasted-{number}{pasted_suffix(words)}").exists():
                number += 1
            file.parent.mkdir(exist_ok=True)
            atomic_write(file, words)
            await self._take(file.relative_to(self.workspace.folder).as_posix())

    async def _chosen(self, event: Any) -> None:
        await self._take(str(event.value))

    async def _take(self, file: str) -> None:
        self.file, self.reading, self.name = file, ReadingChoices(), dataset_name(file)
        found = await self._read("sheets")
        self.sheets = () if isinstance(found, SartorError) else found  # what is wrong is shown when it is read
        await self.redraw()

    async def redraw(self) -> None:
        """Read the file with the current choices, and show the result."""
        outcome = await self._read("inspect", reading=self.reading)
        self.preview.clear()
        with self.preview:
            if isinstance(outcome, SartorError):
                show_error(self.t, outcome)
                found = await self._read("first_rows", reading=self.reading)
                rows = [] if isinstance(found, SartorError) else found
                names = columns_of(rows)
                self._choices(None, names)
                self._sample(names, {}, rows)
            else:
                self._summary(outcome)
                self._choices(outcome, list(outcome.columns))
                self._sample(outcome.columns, outcome.mapping, outcome.sample)
                self._finish()

    async def _read(self, call: str, **arguments: Any) -> Any:
        """What the process that reads makes of the chosen file."""
        return await run_in_thread(partial(self.reader.call, call, file=self.file, **arguments))

    def _summary(self, found: FileInspection) -> None:
        t = self.t
        parts = [t("Read as {encoding} ({how})", encoding=found.encoding, how=t(found.how))] if found.encoding else []
        parts.append(t.plural("{count} row", "{count} rows", count=found.rows))
        if found.delimiter:
            parts.append(t("delimiter {delimiter}", delimiter=self._delimiter_name(found.delimiter)))
        if found.entry:
            parts.append(t("already in {format} format", format=str(found.entry["formatting"])))
        with ui.element("div").classes("notice good-n"):
            text(" · ".join(parts))
        kind = f"rows-{found.stage}"
        with ui.element("div").classes("notice" + (" warn-n" if fix_of(kind, {}).message else "")):
            text(f"{t('Kind')}: {t(reason_of(kind, {}))} {t(fix_of(kind, {}))}")

    def _choices(self, found: FileInspection | None, names: list[str]) -> None:
        t = self.t
        with ui.element("div").classes("fields"):
            known = {None: t("Auto-detect")} | {name: name for name in ENCODINGS}
            if found:
                known[None] = (
                    f"{t('Auto-detect')} ({found.encoding})"
                    if found.encoding and not self.reading.encoding
                    else t("Auto-detect")
                )
            ui.select(known, value=self.reading.encoding, label=t("Encoding"), on_change=self._set_encoding).props(
                "outlined dense"
            )
            if len(self.sheets) > 1:
                every = {None: t("all sheets")} | {name: name for name in self.sheets}
                ui.select(every, value=self.reading.sheet, label=t("Sheet"), on_change=self._set_sheet).props(
                    "outlined dense"
                )
            if found.delimiter if found else self._has_cells():
                self._delimiter_choice(found)
            if names and not (found and found.entry):
                shown = {name: name if name.strip() else repr(name) for name in names}
                for field in FIELDS:
                    value = self.reading.columns.get(field) or (found.mapping.get(field) if found else None)
                    ui.select(
                        {None: "–", **shown},
                        value=value if value in shown else None,
                        label=t(FIELDS[field]),
                        on_change=lambda event, field=field: self._set_column(field, event.value),
                    ).props("outlined dense")

    def _has_cells(self) -> bool:
        """Whether the file has a delimiter, by its suffix."""
        suffixes = (*SOURCES.get("csv").suffixes, *SOURCES.get("tsv").suffixes)
        return any(suffix.lower() in suffixes for suffix in PurePath(self.file or "").suffixes)

    def _delimiter_choice(self, found: FileInspection | None) -> None:
        t = self.t
        known: dict[str | None, str] = {None: t("Auto-detect")}
        if found and found.delimiter and not self.reading.delimiter:
            known[None] += f" ({self._delimiter_name(found.delimiter)})"
        known |= {sign: self._delimiter_name(sign) for sign in DELIMITERS}
        ui.select(known, value=self.reading.delimiter, label=t("Delimiter"), on_change=self._set_delimiter).props(
            "outlined dense"
        )

    def _delimiter_name(self, sign: str) -> str:
        return self.t("tab") if sign == "\t" else DELIMITERS.get(sign, repr(sign))

    async def _set_delimiter(self, event: Any) -> None:
        await self._choose(delimiter=event.value, columns={})

    async def _set_encoding(self, event: Any) -> None:
        await self._choose(encoding=event.value, columns={})

    async def _set_sheet(self, event: Any) -> None:
        await self._choose(sheet=event.value, columns={})

    async def _set_column(self, field: str, column: str | None) -> None:
        others = {name: known for name, known in self.reading.columns.items() if name != field}
        await self._choose(columns={**others, field: column} if column else others)

    async def _choose(self, **choices: Any) -> None:
        self.reading = replace(self.reading, **choices)
        await self.redraw()

    def _sample(self, columns: Sequence[str], mapping: Mapping[str, str], sample: Sequence[Mapping[str, Any]]) -> None:
        if not sample:
            return
        text(self.t("First rows, as they are read"), "soft small")
        used = {column: field for field, column in mapping.items()}
        head = [(f"{name} → {self.t(FIELDS[used[name]])}" if name in used else name, "wide raw") for name in columns]
        rows = [[_cell(row.get(name)) for name in columns] for row in sample[:3]]
        table(head, rows)

    def _finish(self) -> None:
        with line():
            ui.input(self.t("Dataset name"), value=self.name, on_change=lambda e: setattr(self, "name", e.value)).props(
                "outlined dense"
            )
            button(self.t("Import"), lambda: self._import(), "main")

    async def _import(self, existing: Existing = "refuse") -> None:
        outcome = await self._read("import_file", name=self.name, reading=self.reading, existing=existing)
        self.list_datasets()
        self.preview.clear()
        with self.preview:
            if isinstance(outcome, SartorError):
                self._refused(outcome)
                return
            self.name = outcome.name
            with ui.element("div").classes("notice good-n"):
                ready = self.t(
                    "{name} is ready: {usable} of {read} rows are usable.",
                    name=self.name,
                    usable=outcome.training,
                    read=outcome.read,
                )
                text(ready, tag="b")
                if outcome.skipped_count:
                    text(
                        self.t.plural(
                            "{count} row cannot be used as it is. Edit it here or leave it out.",
                            "{count} rows cannot be used as they are. Edit them here or leave them out.",
                            count=outcome.skipped_count,
                        )
                    )
            summary = outcome.summary
            if summary and summary.refused:
                await RefusedRows(self.reader, self.t, self.name, summary).draw()
            with line():
                link(self.t("View rows"), f"/dataset/{quote(self.name)}", "btn main")
                link(self.t("Train on it"), f"/train?dataset={quote(self.name)}")

    def _refused(self, error: SartorError) -> None:
        """What is wrong; where the name is taken, the ways to go on without losing the old dataset."""
        t = self.t
        if error.code not in ("dataset-exists", "file-exists"):
            show_error(t, error)
            button(t("Back"), self.redraw)
            return
        text(t(error.what), "notice warn-n")
        text(
            t("Choose another name, or one of these. Nothing is lost: a replaced dataset is moved to the trash."),
            "small",
        )
        with line():
            button(t("Back"), self.redraw, "main")
            button(t("Import as a new version"), partial(self._import, "version"))
            if error.code == "dataset-exists":
                button(t("Replace the old dataset"), partial(self._import, "overwrite"), "danger")

    def list_datasets(self) -> None:
        if self.list:
            self.list.clear()
            with self.list:
                datasets(self.workspace, self.t)


def pasted_suffix(words: str) -> str:
    """The file suffix for a pasted text: JSON, JSON Lines or CSV."""
    start = words.lstrip()[:1]
    if start == "[":
        return ".json"
    if start == "{":
        return ".jsonl" if len([line for line in words.splitlines() if line.startswith("{")]) > 1 else ".json"
    return ".csv"


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else repr(value)


def datasets(workspace: Workspace, t: Translator) -> None:
    """The table of registered datasets."""
    with card("flush"):
        try:
            entries = dict(read_registry(workspace.data).entries)
        except DataError as error:
            if (workspace.data / "dataset_info.json").exists():
                show_error(t, error)
                return
            entries = {}
        if not entries:
            empty(t("No datasets yet"), t("Import a file above to create the first one."))
            return
        rows: list[list[Any]] = []
        for name, entry in entries.items():
            known = entry if isinstance(entry, dict) else {}
            file = workspace.data / str(known.get("file_name", ""))
            bytes_ = size(file.stat().st_size) if file.is_file() else "–"
            rows.append(
                [
                    lambda name=name: link(name, f"/dataset/{quote(name)}", ""),
                    str(known.get("file_name", "–")),
                    str(known.get("formatting", "alpaca")),
                    bytes_,
                    lambda name=name: link(t("Train on it"), f"/train?dataset={quote(name)}", "btn quiet"),
                ]
            )
        table(
            [
                (t("Dataset"), "wide"),
                (t("File"), ""),
                (t("Format"), ""),
                (t("Size"), "num"),
                ("", "act"),
            ],
            rows,
        )
