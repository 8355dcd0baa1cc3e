"""The check view of the dataset page: findings by code, similar rows side by side, and a histogram of lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from nicegui import ui

from sartor import api
from sartor.base.config import RunConfig
from sartor.base.errors import SartorError
from sartor.base.i18n import tr
from sartor.base.reasons import fix_of, reason_of
from sartor.checks import CheckResult, Finding
from sartor.checks.lint_input import length_of
from sartor.data.load import Loaded
from sartor.web.cache import Cache, turns
from sartor.web.components import button, card, line, link, run_in_thread, show_error, text
from sartor.web.i18n import Translator
from sartor.web.workspace import Workspace

MAX_PER_CODE = 20
SEVERITIES = {"error": tr("error"), "warning": tr("warning"), "note": tr("note")}
PILL = {"error": "no", "warning": "wait", "note": "run"}


class LintView:
    """A check of the dataset with a model's tokenizer, started by a button."""

    def __init__(self, workspace: Workspace, cache: Cache, t: Translator, name: str, loaded: Loaded) -> None:
        self.workspace, self.cache, self.t, self.name, self.loaded = workspace, cache, t, name, loaded
        self.model, self.cutoff = "smollm2-135m", 2048

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
                    self.workspace.models(),
                    value=self.model,
                    label=t("Model"),
                    on_change=lambda e: setattr(self, "model", e.value),
                ).props("outlined dense")
                ui.number(
                    "cutoff_len",
                    value=self.cutoff,
                    min=1,
                    step=64,
                    on_change=lambda e: setattr(self, "cutoff", int(e.value or 2048)),
                ).props("outlined dense")
                button(t("Check"), self._check, "main")
            self.out = ui.element("div").classes("flex flex-col gap-3 w-full")

    async def _check(self) -> None:
        self.out.clear()
        with self.out:
            ui.spinner(size="1.6em")
        outcome = await run_in_thread(self._work)
        self.out.clear()
        with self.out:
            if isinstance(outcome, SartorError):
                show_error(self.t, outcome)
                return
            checked, lengths = outcome
            self._findings(checked)
            histogram(self.t, lengths, self.cutoff)

    def _work(self) -> tuple[CheckResult, list[int]]:
        config = RunConfig.from_dict(
            {
                "model_name_or_path": self.model,
                "dataset": self.name,
                "cutoff_len": self.cutoff,
                "dataset_dir": str(self.workspace.data),
            }
        )
        encoder = self.cache.encoder(self.model, None)  # first: it refuses a model outside the folder
        checked = api.check(self.name, config).result
        encoded = encoder.encode_all(self.loaded.examples)
        longer = [int(str(s.params["tokens"])) for s in encoded.skipped if "tokens" in s.params]
        return checked, [length_of(row) for row in encoded.encoded] + longer

    def _findings(self, checked: CheckResult) -> None:
        t = self.t
        if not checked.findings:
            clean = t.plural("No problems in {count} row.", "No problems in {count} rows.", count=checked.rows)
            text(clean, "notice good-n")
        by_code: dict[str, list[Finding]] = {}
        for finding in checked.findings:
            by_code.setdefault(finding.code, []).append(finding)
        for code, found in by_code.items():
            first = found[0]
            what = t(reason_of(code, first.params))
            with ui.expansion().classes("w-full") as group:
                with group.add_slot("header"), line("grow"):
                    text(t.lookup(SEVERITIES, first.severity), f"pill {PILL[first.severity]}", tag="span")
                    text(f"{len(found)} × {what}", tag="span")
                text(t(fix_of(code, first.params)), "small")
                for finding in found[:MAX_PER_CODE]:
                    self._finding(finding)
                if len(found) > MAX_PER_CODE:
                    text(t("and {count} more", count=len(found) - MAX_PER_CODE), "soft small")

    def _finding(self, finding: Finding) -> None:
        if finding.origin is None:
            return
        with ui.element("div").classes("notice").style("margin:8px 0"):
            with line("spread"):
                text(self.t(reason_of(finding.code, finding.params)), "small")
                address = f"/dataset/{quote(self.name)}?view=labels&row={finding.origin.row}"
                link(str(finding.origin), address, "btn quiet")
            if finding.other is not None:
                with ui.element("div").classes("pair"):
                    self._row(finding.origin.id)
                    self._row(finding.other.id)

    def _row(self, row_id: str) -> None:
        example = next((e for e in self.loaded.examples if e.origin.id == row_id), None)
        content = "\n".join(words for _, words in turns(example)) if example else ""
        text(f"{row_id}\n{content}", "clip small")


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
