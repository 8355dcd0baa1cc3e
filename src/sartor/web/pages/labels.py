"""The label view of the dataset page: what the trainer sees of a row, learned tokens coloured."""

from __future__ import annotations

import html
from functools import partial
from typing import Any

from nicegui import ui

from sartor.base.errors import SartorError
from sartor.base.reasons import fix_of, reason_of
from sartor.base.types import Example
from sartor.data.load import Loaded
from sartor.prompt.label_view import LabelView, Piece, RenderedText, label_view
from sartor.prompt.template import template_names
from sartor.web.cache import Cache
from sartor.web.components import button, card, empty, facts, line, run_in_thread, show_error, text
from sartor.web.i18n import Words
from sartor.web.workspace import visible


class LabelsView:
    """One row, drawn by the encoder that training uses."""

    def __init__(self, shelf: Cache, t: Words, loaded: Loaded, row: int) -> None:
        self.shelf, self.t, self.loaded = shelf, t, loaded
        self.model, self.template = "smollm2-135m", None
        self.at = next((i for i, e in enumerate(loaded.examples) if e.origin.row == row), 0)

    async def draw(self) -> None:
        t = self.t
        if not self.loaded.examples:
            empty(t("dataset.no_rows"), t("dataset.no_rows_next"))
            return
        with card():
            with ui.element("div").classes("fields"):
                ui.select(
                    self.shelf.desk.models(),
                    value=self.model,
                    label=t("dataset.model"),
                    with_input=True,
                    new_value_mode="add-unique",
                    on_change=partial(self._set, "model"),
                ).props("outlined dense")
                ui.select(
                    {None: t("dataset.own_template"), **{n: n for n in template_names()}},
                    value=None,
                    label=t("dataset.template"),
                    on_change=partial(self._set, "template"),
                ).props("outlined dense")
            with line():
                button("←", partial(self._step, -1)).props(f'aria-label="{t("dataset.before")}"')
                self.place = text("", "num soft")
                button("→", partial(self._step, 1)).props(f'aria-label="{t("dataset.after")}"')
            with line("small soft").style("flex-wrap:nowrap"):
                ui.element("span").classes("swatch").style("flex:none")
                text(t("dataset.learned_hint"), tag="span")
            self.drawn = ui.element("div")
        await self._redraw()

    async def _set(self, name: str, event: Any) -> None:
        setattr(self, name, event.value)
        await self._redraw()

    async def _step(self, by: int) -> None:
        self.at = (self.at + by) % len(self.loaded.examples)
        await self._redraw()

    async def _redraw(self) -> None:
        example: Example = self.loaded.examples[self.at]
        self.place.set_content(f"{self.at + 1:,} / {len(self.loaded.examples):,}")
        shown = await run_in_thread(lambda: label_view(example, self.shelf.encoder(self.model, self.template)))
        self.drawn.clear()
        with self.drawn:
            if isinstance(shown, SartorError):
                show_error(self.t, shown)
            else:
                self._shown(shown)

    def _shown(self, shown: LabelView) -> None:
        t = self.t
        for drawing in shown.renderings:
            share = f"{drawing.label_tokens / max(1, drawing.tokens):.0%}"
            facts(
                [
                    (t("dataset.tokens"), f"{drawing.tokens:,}"),
                    (t("dataset.learned"), f"{drawing.label_tokens:,}"),
                    (t("dataset.share"), share),
                ]
            )
            if drawing.title:
                text(drawing.title, tag="h2")
            ui.html(colored(drawing), tag="pre", sanitize=False).classes("code").style("margin-top:12px")
        if shown.skipped:
            found = shown.skipped
            said = [of(found.code, found.params).render(t.lang) for of in (reason_of, fix_of)]
            text(" ".join(said), "bad")
        for note in shown.notes:
            text(t.note(note), "soft small")


def colored(drawing: RenderedText) -> str:
    """The pieces as spans; every text escaped, every control character visible."""
    spans, shade = [], 0
    for piece in drawing.pieces:
        shade = 1 - shade if piece.trained else shade
        spans.append(f'<span class="{_classes(piece, shade)}">{html.escape(visible(piece.text))}</span>')
    return "".join(spans)


def _classes(piece: Piece, shade: int) -> str:
    names = ["tok", f"l{shade}" if piece.trained else "read"]
    names += ["ctl"] if piece.control else []
    return " ".join(names if piece.used else [*names, "cut"])
