"""A list of any length that scrolls: only the rows in sight are made; it knows nothing of what a row shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

HEIGHT_PX = 45
SIGHT_PX = 560
MORE = 6
TALLEST_PX = 6_000_000
"""Browsers draw no element much taller than 16 million pixels; beyond this the bar is scaled."""


class Rows:
    """`draw(position)` makes one row of HEIGHT_PX; called for the rows in sight and a few around."""

    def __init__(self, count: int, draw: Callable[[int], Any]) -> None:
        self.draw = draw
        self.first = -1
        with ui.element("div").classes("list").style(f"max-height:{SIGHT_PX}px").props("tabindex=0") as self.outer:
            self.inner = ui.element("div").style("position:relative")
        self.outer.on(
            "scroll",
            self._scrolled,
            throttle=0.08,
            trailing_events=True,
            js_handler=("(e) => { if (e.target === e.currentTarget || true) emit(e.target.scrollTop) }"),
        )
        self.reset(count)

    def reset(self, count: int) -> None:
        """Other rows: back to the top."""
        self.count = count
        self.height = min(count * HEIGHT_PX, TALLEST_PX)
        self.inner.style(f"height:{self.height}px")
        self.outer.run_method("scrollTo", 0, 0)
        self._show(0.0)

    def _scrolled(self, event: Any) -> None:
        top = float(event.args)
        if abs(first_row(top, self.count) - self.first) >= MORE // 2:
            self._show(top)

    def _show(self, top: float) -> None:
        self.first = first_row(top, self.count)
        begin = max(0, self.first - MORE)
        end = min(self.count, self.first + SIGHT_PX // HEIGHT_PX + MORE + 1)
        scaled = self.count * HEIGHT_PX > TALLEST_PX
        offset = top - (self.first - begin) * HEIGHT_PX if scaled else begin * HEIGHT_PX
        self.inner.clear()
        with self.inner, ui.element("div").style(f"position:absolute;left:0;right:0;top:{max(offset, 0):.0f}px"):
            for position in range(begin, end):
                self.draw(position)


def first_row(top: float, count: int) -> int:
    """The row at this scroll position; the last ones are reached at the very end."""
    height = min(count * HEIGHT_PX, TALLEST_PX)
    if count * HEIGHT_PX <= TALLEST_PX:
        return int(top // HEIGHT_PX)
    share = min(1.0, top / max(1, height - SIGHT_PX))
    return round(share * (count - SIGHT_PX // HEIGHT_PX))
