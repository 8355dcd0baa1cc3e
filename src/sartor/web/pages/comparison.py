"""Several models over the same rows, as the page `/evaluate` shows them: a table, verdicts, scores, all answers."""

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
from sartor.web.components import button, card, line, link, pill, table, text
from sartor.web.i18n import Words
from sartor.web.jobs import Job
from sartor.web.pages.verdict import said
from sartor.web.workspace import Workspace, visible

if TYPE_CHECKING:
    from sartor.evaluation.verdict import Verdict

AT_ONCE = 15
BASE = "base"


@dataclass(frozen=True, slots=True)
class SavedComparison:
    """What the job of a comparison left: the values, each verdict against the first, each row's answers in order."""

    folder: str
    candidates: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Verdict]
    p_holm: Sequence[float]
    notes: Sequence[Text]
    rows: Sequence[Sequence[Mapping[str, Any]]]

    @property
    def metric(self) -> str:
        return self.verdicts[0].primary.metric


def things(desk: Workspace, run: str, finished: Sequence[str]) -> list[str]:
    """What a run can be compared with, as `api.compare_several` wants it: its base, runs, checkpoints, models."""
    others = [f"runs/{name}" for name in finished if name != run]
    checkpoints = [
        f"runs/{folder.name}/{checkpoint.name}"
        for folder in sorted(desk.runs.glob("*"))
        for checkpoint in RunDir(folder).checkpoints()
    ]
    return [BASE, *others, *checkpoints, *desk.models()]


def place(run: str, wanted: Sequence[str], overrides: Sequence[str]) -> str:
    """The folder of this very comparison below its run."""
    digest = hashlib.sha256("\n".join([*wanted, *overrides]).encode()).hexdigest()[:10]
    return f"runs/{run}/comparisons/{digest}"


def read(desk: Workspace, job: Job) -> SavedComparison:
    """The outcome of a job that is done."""
    from sartor.evaluation.verdict import Verdict

    told = (job.read("ended.json") or {})["result"]
    folder = desk.resolve_inside(told["folder"])
    answers: list[dict[str, Mapping[str, Any]]] = []
    for number in range(1, len(told["candidates"]) + 1):
        found = sorted(folder.glob(f"{number}-*"))
        lines = read_json_lines(found[0] / "generated_predictions.jsonl") if found else ()
        answers.append({str(row["id"]): row for row in lines})
    rows = [[part[row_id] for part in answers] for row_id in told["rows"] if all(row_id in part for part in answers)]
    verdicts = [Verdict.from_json(one) for one in told["verdicts"]]
    p_holm = [float(one["p_holm"]) for one in told["verdicts"]]
    return SavedComparison(
        told["folder"], told["candidates"], verdicts, p_holm, list(map(Text.from_json, told["notes"])), rows
    )


class ComparisonView:
    """One comparison, drawn."""

    def __init__(self, t: Words, run: str, contest: SavedComparison) -> None:
        self.t, self.run, self.contest = t, run, contest
        self.order, self.shown = "row", AT_ONCE

    def draw(self) -> None:
        self._verdicts()
        self._scores()
        self._answers()

    def _verdicts(self) -> None:
        from sartor.evaluation.numbers import interval
        from sartor.evaluation.numbers import number as figure

        t, contest = self.t, self.contest
        first, *others = contest.candidates
        rows: list[list[Any]] = [
            [
                partial(self._name, first),
                figure(contest.verdicts[0].primary.base),
                "–",
                "–",
                "–",
                t("evaluate.yardstick"),
            ]
        ]
        for contestant, verdict, p in zip(others, contest.verdicts, contest.p_holm, strict=True):
            d = verdict.primary
            said = t.get(f"verdict.{verdict.outcome}", verdict.outcome)
            rows.append(
                [
                    partial(self._name, contestant),
                    figure(d.tuned),
                    figure(d.difference, True),
                    interval(d.low, d.high),
                    f"{p:.3g}",
                    partial(pill, said, verdict.outcome),
                ]
            )
        head = [
            (t("dataset.model"), "wide"),
            (contest.metric, "num raw"),
            (t("evaluate.difference"), "num"),
            (t("evaluate.interval"), "num"),
            ("p (Holm)", "num raw"),
            (t("runs.verdict"), ""),
        ]
        with card("flush"):
            with line("spread").style("padding:16px 20px 0"):
                text(t("evaluate.several", count=len(contest.candidates), rows=len(contest.rows)), tag="h2")
                inner = contest.folder.removeprefix(f"runs/{self.run}/")
                address = f"/runs/{quote(self.run)}/file/{quote(inner)}/comparison.json"
                link(t("evaluate.download"), address).props["download"] = f"{self.run}-comparison.json"
            table(head, rows)
            for note in contest.notes:
                text(note.render(t.lang), "soft small").style("padding:0 20px 12px")

    def _name(self, contestant: Mapping[str, Any]) -> None:
        text(contestant["name"], tag="b")
        text(contestant["answered_by"], "mono soft")

    def _scores(self) -> None:
        """Every score, one column a model."""
        from sartor.evaluation.numbers import number as figure

        contestants = self.contest.candidates
        names = ["loss", *contestants[0]["scores"]]
        head = [(self.t("evaluate.metric"), "wide"), *((str(c["name"]), "num raw") for c in contestants)]
        rows: list[list[Any]] = [
            [name, *(figure(c["loss"] if name == "loss" else c["scores"].get(name)) for c in contestants)]
            for name in names
        ]
        with card("flush"), ui.expansion(self.t("evaluate.all_scores")).classes("w-full"):
            table(head, rows)

    def _answers(self) -> None:
        t, contest = self.t, self.contest
        if not contest.rows:
            return
        options = orders(t, contest)
        with card():
            with line("spread"):
                text(t("evaluate.answers"), tag="h2")
                ui.select(options, value=self.order, label=t("evaluate.sort"), on_change=self._sort).props(
                    "outlined dense"
                )
            self.list = ui.element("div").classes("flex flex-col gap-4 w-full")
            self._fill()

    def _sort(self, event: Any) -> None:
        self.order, self.shown = event.value, AT_ONCE
        self._fill()

    def _more(self) -> None:
        self.shown += AT_ONCE
        self._fill()

    def _fill(self) -> None:
        rows = ordered(self.contest.rows, self.order)
        self.list.clear()
        with self.list:
            for row in rows[: self.shown]:
                self._row(row)
            if self.shown < len(rows):
                button(self.t("dataset.more", count=len(rows) - self.shown), self._more)

    def _row(self, row: Sequence[Mapping[str, Any]]) -> None:
        t, label = self.t, str(row[0].get("label") or "")
        with ui.element("article").classes("answer"):
            with line("spread"):
                text(row[0].get("question") or row[0].get("prompt") or "", tag="b")
                text(row[0].get("id", ""), "soft small", tag="span")
            text(f"{t('evaluate.reference')}: {label}", "soft")
            with ui.element("div").classes("chat-cols"):
                for contestant, one in zip(self.contest.candidates, row, strict=True):
                    with ui.element("div"):
                        loss = one.get("loss")
                        figure = f" · {t('runs.loss')} {loss:.3f}" if isinstance(loss, float) else ""
                        text(f"{contestant['name']}{figure} · {one.get('stop_reason', '')}", "who num")
                        said(t, str(one.get("predict") or ""), label)


def orders(t: Words, contest: SavedComparison) -> dict[str, str]:
    """`number name way` → what the list is sorted by: a score of one of the models."""
    found = {"row": t("evaluate.by_row")}
    for number, contestant in enumerate(contest.candidates):
        names = [
            n for n in (contest.rows[0][number].get("scores") or {}) if n in (contest.metric, "rouge-l.char", "chrf")
        ]
        for name in (["loss"] if isinstance(contest.rows[0][number].get("loss"), float) else []) + names:
            for way, sign in (("up", "↑"), ("down", "↓")):
                found[f"{number} {name} {way}"] = html.unescape(visible(f"{contestant['name']}: {name} {sign}"))
    return found


def ordered(rows: Sequence[Sequence[Mapping[str, Any]]], order: str) -> list[Sequence[Mapping[str, Any]]]:
    """The rows by one model's score; those without it come last."""
    if order == "row":
        return list(rows)
    number, name, way = order.split(" ")

    def value(row: Sequence[Mapping[str, Any]]) -> float | None:
        one = row[int(number)]
        found = one.get("loss") if name == "loss" else (one.get("scores") or {}).get(name)
        return float(found) if isinstance(found, int | float) else None

    known = [row for row in rows if value(row) is not None]
    known.sort(key=lambda row: value(row) or 0.0, reverse=way == "down")
    return known + [row for row in rows if value(row) is None]


def shown_name(thing: str, t: Words) -> str:
    """A thing to compare as a person reads it."""
    if thing == BASE:
        return t("evaluate.its_base")
    return thing.removeprefix("runs/") if thing.startswith("runs/") else Path(thing).name
