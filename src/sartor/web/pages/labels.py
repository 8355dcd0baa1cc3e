"""The label view of the dataset page: a row as the trainer sees it, with training tokens colored."""

from __future__ import annotations

import html
from functools import partial
from typing import Any

from nicegui import ui

from sartor.base.errors import SartorError
from sartor.base.reasons import fix_of, reason_of
from sartor.prompt.label_view import LabelView, Piece, RenderedText
from sartor.prompt.named_templates import template_names
from sartor.web.components import button, card, empty, facts, line, note_text, run_in_thread, show_error, text
from sartor.web.i18n import Translator
from sartor.web.reader import Reader
from sartor.web.shown import ShownDataset
from sartor.web.workspace import visible


class LabelsView:
    """One row, encoded exactly as in training."""

    def __init__(self, reader: Reader, t: Translator, shown: ShownDataset, row: int) -> None:
        self.reader, self.t, self.shown, self.row = reader, t, shown, row
        self.model, self.template = "smollm2-135m", None
        self.at = 0

    async def draw(self) -> None:
        t = self.t
        if not self.shown.usable:
            empty(t("No usable rows"), t("The reasons are listed above. Fix the rows or the entry."))
            return
        with card():
            with ui.element("div").classes("fields"):
                ui.select(
                    self.reader.workspace.models(),
                    value=self.model,
                    label=t("Model"),
                    with_input=True,
                    new_value_mode="add-unique",
                    on_change=partial(self._set, "model"),
                ).props("outlined dense")
                ui.select(
                    {None: t("model default"), **{n: n for n in template_names()}},
                    value=None,
                    label=t("Template"),
                    on_change=partial(self._set, "template"),
                ).props("outlined dense")
            with line():
                button("←", partial(self._step, -1)).props(f'aria-label="{t("Previous row")}"')
                self.place = text("", "num soft")
                button("→", partial(self._step, 1)).props(f'aria-label="{t("Next row")}"')
            with line("small soft").style("flex-wrap:nowrap"):
                ui.element("span").classes("swatch").style("flex:none")
                text(t("Colored tokens are trained on; the others are context only."), tag="span")
            self.drawn = ui.element("div")
        place = await self._call("position", row=self.row) if self.row else 0
        self.at = place if isinstance(place, int) else 0
        await self._redraw()

    async def _set(self, name: str, event: Any) -> None:
        setattr(self, name, event.value)
        await self._redraw()

    async def _step(self, by: int) -> None:
        self.at = (self.at + by) % self.shown.usable
        await self._redraw()

    async def _call(self, call: str, **arguments: Any) -> Any:
        name = self.shown.name
        return await run_in_thread(partial(self.reader.call, call, name, name=name, **arguments))

    async def _redraw(self) -> None:
        self.place.set_content(f"{self.at + 1:,} / {self.shown.usable:,}")
        shown = await self._call("labels", position=self.at, model=self.model, template=self.template)
        self.drawn.clear()
        with self.drawn:
            if isinstance(shown, SartorError):
                show_error(self.t, shown)
            else:
                self._rendered(shown)

    def _rendered(self, shown: LabelView) -> None:
        t = self.t
        for rendering in shown.renderings:
            share = f"{rendering.label_tokens / max(1, rendering.tokens):.0%}"
            facts(
                [
                    (t("tokens"), f"{rendering.tokens:,}"),
                    (t("training tokens"), f"{rendering.label_tokens:,}"),
                    (t("training share"), share),
                ]
            )
            if rendering.title:
                text(t(rendering.title), tag="h2")
            ui.html(colored(rendering), tag="pre", sanitize=False).classes("code").style("margin-top:12px")
        if shown.skipped:
            found = shown.skipped
            text(f"{t(reason_of(found.code, found.params))} {t(fix_of(found.code, found.params))}", "bad")
        for note in shown.notes:
            text(note_text(t, note), "soft small")


def colored(rendering: RenderedText) -> str:
    """The pieces as HTML spans, escaped and with control characters made visible."""
    spans, shade = [], 0
    for piece in rendering.pieces:
        shade = 1 - shade if piece.trained else shade
        spans.append(f'<span class="{_classes(piece, shade)}">{html.escape(visible(piece.text))}</span>')
    return "".join(spans)


def _classes(piece: Piece, shade: int) -> str:
    names = ["tok", f"l{shade}" if piece.trained else "read"]
    names += ["ctl"] if piece.control else []
    return " ".join(names if piece.used else [*names, "cut"])
