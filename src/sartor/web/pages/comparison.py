"""The multi-model view of the page `/evaluate`: verdicts, all metrics, and the answers side by side."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nicegui import ui

from sartor.base.i18n import Text
from sartor.base.rundir import RunDir, read_json_lines
from sartor.evaluation.numbers import interval
from sartor.evaluation.numbers import number as figure
from sartor.web.components import button, card, line, link, pill, table, text
from sartor.web.i18n import Translator
from sartor.web.jobs import Job
from sartor.web.pages.verdict import show_answer
from sartor.web.value_names import OUTCOMES
from sartor.web.workspace import Workspace, visible

if TYPE_CHECKING:
    from sartor.evaluation.verdict import Verdict

AT_ONCE = 15
BASE = "base"


@dataclass(frozen=True, slots=True)
class SavedComparison:
    """A finished comparison: its candidates, each one's verdict against the first, and the answers of each row."""

    folder: str
    candidates: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Verdict]
    notes: Sequence[Text]
    rows: Sequence[Sequence[Mapping[str, Any]]]

    @property
    def metric(self) -> str:
        return self.verdicts[0].primary.metric


def targets(workspace: Workspace, run: str, finished: Sequence[str]) -> list[str]:
    """What a run can be compared with, as `api.compare_several` takes it: its base, runs, checkpoints, models."""
    others = [f"runs/{name}" for name in finished if name != run]
    checkpoints = [
        f"runs/{folder.name}/{checkpoint.name}"
        for folder in sorted(workspace.runs.glob("*"))
        for checkpoint in RunDir(folder).checkpoints()
    ]
    return [BASE, *others, *checkpoints, *workspace.models()]


def output_folder(run: str, wanted: Sequence[str], overrides: Sequence[str]) -> str:
    """The folder in the run for a comparison with these targets and settings."""
    digest = hashlib.sha256("\n".join([*wanted, *overrides]).encode()).hexdigest()[:10]
    return f"runs/{run}/comparisons/{digest}"


def read(workspace: Workspace, job: Job) -> SavedComparison:
    """The result of a finished job."""
    from sartor.evaluation.verdict import Verdict

    result = (job.read("ended.json") or {})["result"]
    folder = workspace.resolve_inside(result["folder"])
    answers: list[dict[str, Mapping[str, Any]]] = []
    for number in range(1, len(result["candidates"]) + 1):
        found = sorted(folder.glob(f"{number}-*"))
        lines = read_json_lines(found[0] / "generated_predictions.jsonl") if found else ()
        answers.append({str(row["id"]): row for row in lines})
    rows = [[part[row_id] for part in answers] for row_id in result["rows"] if all(row_id in part for part in answers)]
    notes = [Text.from_json(note) for note in result["notes"]]
    verdicts = [Verdict.from_json(one) for one in result["verdicts"]]
    return SavedComparison(result["folder"], result["candidates"], verdicts, notes, rows)


class ComparisonView:
    """Shows one comparison."""

    def __init__(self, t: Translator, run: str, comparison: SavedComparison) -> None:
        self.t, self.run, self.comparison = t, run, comparison
        self.order, self.shown = "row", AT_ONCE

    def draw(self) -> None:
        self._verdicts()
        self._scores()
        self._answers()

    def _verdicts(self) -> None:

        t, comparison = self.t, self.comparison
        first, *others = comparison.candidates
        rows: list[list[Any]] = [
            [
                partial(self._name, first),
                figure(comparison.verdicts[0].primary.base),
                "–",
                "–",
                "–",
                t("baseline for the others"),
            ]
        ]
        for candidate, verdict in zip(others, comparison.verdicts, strict=True):
            d = verdict.primary
            outcome = t.lookup(OUTCOMES, verdict.outcome)
            rows.append(
                [
                    partial(self._name, candidate),
                    figure(d.tuned),
                    figure(d.difference, True),
                    interval(d.low, d.high),
                    f"{d.p:.3g}",
                    partial(pill, outcome, verdict.outcome),
                ]
            )
        head = [
            (t("Model"), "wide"),
            (comparison.metric, "num raw"),
            (t("difference"), "num"),
            (t("95% interval"), "num"),
            ("p", "num raw"),
            (t("verdict"), ""),
        ]
        with card("flush"):
            with line("spread").style("padding:16px 20px 0"):
                text(
                    t("{count} models on {rows} rows", count=len(comparison.candidates), rows=len(comparison.rows)),
                    tag="h2",
                )
                inner = comparison.folder.removeprefix(f"runs/{self.run}/")
                address = f"/runs/{quote(self.run)}/file/{quote(inner)}/comparison.json"
                link(t("Download"), address).props["download"] = f"{self.run}-comparison.json"
            table(head, rows)
            for note in comparison.notes:
                text(t(note), "soft small").style("padding:0 20px 12px")

    def _name(self, candidate: Mapping[str, Any]) -> None:
        text(candidate["name"], tag="b")
        text(candidate["answered_by"], "mono soft")

    def _scores(self) -> None:
        """Every metric, one column per model."""

        candidates = self.comparison.candidates
        names = ["loss", *candidates[0]["scores"]]
        head = [(self.t("metric"), "wide"), *((str(c["name"]), "num raw") for c in candidates)]
        rows: list[list[Any]] = [
            [name, *(figure(c["loss"] if name == "loss" else c["scores"].get(name)) for c in candidates)]
            for name in names
        ]
        with card("flush"), ui.expansion(self.t("All metrics")).classes("w-full"):
            table(head, rows)

    def _answers(self) -> None:
        t, comparison = self.t, self.comparison
        if not comparison.rows:
            return
        options = orders(t, comparison)
        with card():
            with line("spread"):
                text(t("Answers side by side"), tag="h2")
                ui.select(options, value=self.order, label=t("Sort by"), on_change=self._sort).props("outlined dense")
            self.answers = ui.element("div").classes("flex flex-col gap-4 w-full")
            self._fill()

    def _sort(self, event: Any) -> None:
        self.order, self.shown = event.value, AT_ONCE
        self._fill()

    def _more(self) -> None:
        self.shown += AT_ONCE
        self._fill()

    def _fill(self) -> None:
        rows = ordered(self.comparison.rows, self.order)
        self.answers.clear()
        with self.answers:
            for row in rows[: self.shown]:
                self._row(row)
            if self.shown < len(rows):
                button(self.t("and {count} more", count=len(rows) - self.shown), self._more)

    def _row(self, row: Sequence[Mapping[str, Any]]) -> None:
        t, label = self.t, str(row[0].get("label") or "")
        with ui.element("article").classes("answer"):
            with line("spread"):
                text(row[0].get("question") or row[0].get("prompt") or "", tag="b")
                text(row[0].get("id", ""), "soft small", tag="span")
            text(f"{t('Reference')}: {label}", "soft")
            with ui.element("div").classes("chat-cols"):
                for candidate, one in zip(self.comparison.candidates, row, strict=True):
                    with ui.element("div"):
                        loss = one.get("loss")
                        figure = f" · {t('loss')} {loss:.3f}" if isinstance(loss, float) else ""
                        text(f"{candidate['name']}{figure} · {one.get('stop_reason', '')}", "who num")
                        show_answer(t, str(one.get("predict") or ""), label)


def orders(t: Translator, comparison: SavedComparison) -> dict[str, str]:
    """Sort options: `number name direction` → a metric of one of the models."""
    found = {"row": t("dataset order")}
    for number, candidate in enumerate(comparison.candidates):
        names = [
            n
            for n in (comparison.rows[0][number].get("scores") or {})
            if n in (comparison.metric, "rouge-l.char", "chrf")
        ]
        for name in (["loss"] if isinstance(comparison.rows[0][number].get("loss"), float) else []) + names:
            for direction, sign in (("up", "↑"), ("down", "↓")):
                found[f"{number} {name} {direction}"] = html.unescape(visible(f"{candidate['name']}: {name} {sign}"))
    return found


def ordered(rows: Sequence[Sequence[Mapping[str, Any]]], order: str) -> list[Sequence[Mapping[str, Any]]]:
    """The rows sorted by one model's score; rows without it come last."""
    if order == "row":
        return list(rows)
    number, name, direction = order.split(" ")

    def value(row: Sequence[Mapping[str, Any]]) -> float | None:
        one = row[int(number)]
        found = one.get("loss") if name == "loss" else (one.get("scores") or {}).get(name)
        return float(found) if isinstance(found, int | float) else None

    known = [row for row in rows if value(row) is not None]
    known.sort(key=lambda row: value(row) or 0.0, reverse=direction == "down")
    return known + [row for row in rows if value(row) is None]


def display_name(target: str, t: Translator) -> str:
    """The display name of a target."""
    if target == BASE:
        return t("base model")
    return target.removeprefix("runs/") if target.startswith("runs/") else Path(target).name
