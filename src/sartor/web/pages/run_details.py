"""The folded sections below a run's charts: samples, log, checkpoints, ledger, settings, files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nicegui import ui

from sartor.base.config import to_yaml
from sartor.base.errors import SartorError
from sartor.base.i18n import tr
from sartor.base.reasons import fix_of, reason_of
from sartor.base.rundir import RunDir
from sartor.web.components import card, facts, link, number, size, table, text
from sartor.web.form import parse_yaml
from sartor.web.i18n import Translator
from sartor.web.jobs import Jobs
from sartor.web.run_monitor import RunMonitor, clock

FOLDED = {
    "samples": tr("Sample outputs during training"),
    "log": tr("Log"),
    "checkpoints": tr("Checkpoints"),
    "ledger": tr("What happened to each row"),
    "settings": tr("Settings and plan"),
    "files": tr("Files"),
}
"""The sections; RunDetails has a method for each."""


class RunDetails:
    """The sections of one run; only the open ones are kept up to date."""

    def __init__(self, run: RunDir, monitor: RunMonitor, jobs: Jobs, t: Translator) -> None:
        self.run, self.monitor, self.jobs, self.t = run, monitor, jobs, t

    def draw(self) -> None:
        self.folded: dict[str, tuple[ui.expansion, ui.element]] = {}
        with card("flush"):
            for key, title in FOLDED.items():
                with ui.expansion(self.t(title), on_value_change=self.update).classes("w-full") as fold:
                    self.folded[key] = fold, ui.element("div").classes("w-full").style("padding:0 4px 12px")

    def update(self) -> None:
        """Update the sections that are open."""
        for key, (fold, place) in self.folded.items():
            if fold.value:
                place.clear()
                with place:
                    getattr(self, f"_{key}")()

    def _samples(self) -> None:
        found = [event for event in self.monitor.lines if event["kind"] == "sample"]
        if not found:
            text(self.t("None. Set sample_steps and sample_prompts to see outputs during training."), "soft small")
        for event in found[-20:]:
            text(f"{self.t('step')} {event.get('step')}", "who")
            if prompt := str(event.get("prompt") or ""):
                text(prompt, "say user")
            text(event.get("text", json.dumps(event, ensure_ascii=False)), "say assistant")

    def _log(self) -> None:
        lines = [
            f"{clock(e.get('time'))}  {e['kind']:<12} "
            + ", ".join(f"{key} {value}" for key, value in e.items() if key not in ("time", "kind", "pid", "text"))
            + str(e.get("text", ""))
            for e in self.monitor.lines[-100:]
        ]
        text("\n".join(lines) or "–", "code", tag="pre")
        job = self.jobs.of(self.run.name, "train")
        if job is not None and (printed := job.log().strip()):
            text(printed, "code", tag="pre")

    def _checkpoints(self) -> None:
        rows = [[path.name, clock(path.stat().st_mtime)] for path in self.run.checkpoints()]
        if rows:
            table([(self.t("Checkpoint"), ""), (self.t("saved at"), "num")], rows)
        else:
            text(self.t("None yet. save_steps sets how often they are saved."), "soft small")

    def _ledger(self) -> None:
        try:
            ledger = self.run.read_json("data.json")["ledger"]
        except (SartorError, KeyError):
            return
        t = self.t
        facts(
            [
                (t("rows read"), number(ledger["read"])),
                (t("training rows"), number(ledger["training"])),
                (t("held-out rows"), number(ledger["held_out"])),
                (t("left out on request"), number(ledger["left_out"])),
                (t("skipped"), number(len(ledger["skipped"]))),
            ]
        )
        rows: list[list[Any]] = [[_place(s), *_skip_texts(t, s)] for s in ledger["skipped"][:100]]
        if rows:
            table([(t("Line"), ""), (t("Problem"), "wide"), (t("Fix"), "wide")], rows)

    def _settings(self) -> None:
        for file in (self.run.config, self.run.plan):
            if file.exists():
                text(file.name, "who")
                text(_as_text(file), "code", tag="pre")

    def _files(self) -> None:
        found = sorted(path for path in self.run.path.rglob("*") if path.is_file())[:300]
        rows: list[list[Any]] = []
        for path in found:
            name = path.relative_to(self.run.path).as_posix()
            address = f"/runs/{quote(self.run.name)}/file/{quote(name)}"
            rows.append([partial(link, name, address, ""), size(path.stat().st_size)])
        table([(self.t("File"), "wide"), (self.t("Size"), "num")], rows)


def _place(skipped: Mapping[str, Any]) -> str:
    """Where a skipped row is in the person's own file, and its id."""
    found = skipped.get("imported_from")
    return f"{found['file']}, row {found['row']} ({skipped['id']})" if found else str(skipped["id"])


def _skip_texts(t: Translator, skipped: Mapping[str, Any]) -> tuple[str, str]:
    """(reason, fix) of a skipped row in a run's ledger; the saved text if its code is not known here."""
    try:
        code, params = skipped["code"], skipped["params"]
        return t(reason_of(code, params)), t(fix_of(code, params))
    except KeyError:
        return str(skipped["reason"]), str(skipped["fix"])


def _as_text(file: Path) -> str:
    content = file.read_text(encoding="utf-8", errors="replace")
    return to_yaml(parse_yaml(content)) if file.suffix == ".yaml" else content
