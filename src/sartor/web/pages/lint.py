"""The check view of the dataset page: findings by code, similar rows side by side, and a histogram of lengths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import numpy as np
from nicegui import ui

from sartor.base.errors import SartorError
from sartor.base.i18n import tr
from sartor.base.reasons import fix_of, reason_of
from sartor.base.settings import FIRST_TRAINING
from sartor.checks import Finding
from sartor.web.components import button, card, line, link, run_in_thread, show_error, text
from sartor.web.i18n import Translator
from sartor.web.reader import Reader
from sartor.web.shown import Checked, ShownDataset

SEVERITIES = {"error": tr("error"), "warning": tr("warning"), "note": tr("note")}
PILL = {"error": "no", "warning": "wait", "note": "run"}


class LintView:
    """A check of the dataset with a model's tokenizer, started by a button."""

    def __init__(self, reader: Reader, t: Translator, shown: ShownDataset) -> None:
        self.reader, self.t, self.name = reader, t, shown.name
        self.model, self.cutoff = "smollm2-135m", int(FIRST_TRAINING["cutoff_len"])

    def draw(self) -> None:
        t = self.t
        with card():
            text(
                t(
                    "Finds errors, duplicates, contradictions, personal data, truncated answers and overlong "
                    "rows, with the same encoding as training."
                ),
                "soft",
            )
            with line():
                ui.select(
                    self.reader.workspace.models(),
                    value=self.model,
                    label=t("Model"),
                    on_change=lambda e: setattr(self, "model", e.value),
                ).props("outlined dense")
                ui.number(
                    "cutoff_len",
                    value=self.cutoff,
                    min=1,
                    step=64,
                    on_change=lambda e: setattr(self, "cutoff", int(e.value or FIRST_TRAINING["cutoff_len"])),
                ).props("outlined dense")
                button(t("Check"), self._check, "main")
            self.out = ui.element("div").classes("flex flex-col gap-3 w-full")

    async def _check(self) -> None:
        self.out.clear()
        with self.out:
            ui.spinner(size="1.6em")
        about = f"check {self.name}"  # a process of its own: the other views of the dataset stay quick
        arguments = {"name": self.name, "model": self.model, "cutoff": self.cutoff}
        outcome = await run_in_thread(partial(self.reader.call, "check", about, **arguments))
        self.out.clear()
        with self.out:
            if isinstance(outcome, SartorError):
                show_error(self.t, outcome)
                return
            self._findings(outcome)
            histogram(self.t, outcome.lengths, self.cutoff)

    def _findings(self, checked: Checked) -> None:
        t = self.t
        if not checked.findings:
            clean = t.plural("No problems in {count} row.", "No problems in {count} rows.", count=checked.rows)
            text(clean, "notice good-n")
        for group in checked.findings:
            code, first = group.code, group.first[0]
            what = t(reason_of(code, first.params))
            with ui.expansion().classes("w-full") as folded:
                with folded.add_slot("header"), line("grow"):
                    text(t.lookup(SEVERITIES, first.severity), f"pill {PILL[first.severity]}", tag="span")
                    text(f"{group.count} × {what}", tag="span")
                text(t(fix_of(code, first.params)), "small")
                for finding in group.first:
                    self._finding(finding, checked)
                if group.count > len(group.first):
                    text(t("and {count} more", count=group.count - len(group.first)), "soft small")

    def _finding(self, finding: Finding, checked: Checked) -> None:
        if finding.origin is None:
            return
        with ui.element("div").classes("notice").style("margin:8px 0"):
            with line("spread"):
                text(self.t(reason_of(finding.code, finding.params)), "small")
                address = f"/dataset/{quote(self.name)}?view=labels&row={finding.origin.row}"
                link(str(finding.origin), address, "btn quiet")
            if finding.other is not None:
                with ui.element("div").classes("pair"):
                    for row_id in (finding.origin.id, finding.other.id):
                        text(f"{row_id}\n{checked.texts.get(row_id, '')}", "clip small")


def histogram(t: Translator, lengths: Sequence[int], cutoff: int) -> None:
    """A histogram of row lengths in tokens, with `cutoff_len` marked."""
    if not lengths:
        return
    top = max(max(lengths), 1)
    counts, edges = np.histogram(lengths, bins=min(40, top), range=(0, top))
    text(
        t("Row length in tokens (longest {longest}, cutoff_len {cutoff})", longest=f"{top:,}", cutoff=f"{cutoff:,}"),
        tag="h2",
    )
    mark: dict[str, Any] = {"symbol": "none", "data": [{"xAxis": cutoff, "name": "cutoff_len"}]} if cutoff < top else {}
    ui.echart(
        {
            "grid": {"left": 48, "right": 20, "top": 16, "bottom": 30},
            "color": ["#0b6e66"],
            "animation": False,
            "xAxis": {"type": "value", "max": top, "splitLine": {"show": False}},
            "yAxis": {"type": "value", "splitLine": {"lineStyle": {"opacity": 0.25}}},
            "series": [
                {
                    "type": "bar",
                    "barWidth": "80%",
                    "markLine": mark,
                    "data": [[float((a + b) / 2), int(n)] for a, b, n in zip(edges, edges[1:], counts, strict=False)],
                }
            ],
        }
    ).style("height:220px;width:100%")
