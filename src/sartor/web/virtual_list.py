"""A scrolling list of any length that only creates the visible rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

HEIGHT_PX = 45
VIEWPORT_PX = 560
OVERSCAN_ROWS = 6
MAX_HEIGHT_PX = 6_000_000
"""Browsers cap elements at about 16 million pixels; beyond this height the scroll position is scaled."""


class VirtualList:
    """`draw(position)` creates one row of HEIGHT_PX; called for the visible rows and a few around them.

    `fetch(positions)` gets these rows before they are drawn; such a list is empty until `load`.
    """

    def __init__(
        self,
        count: int,
        draw: Callable[[int], Any],
        fetch: Callable[[range], Awaitable[None]] | None = None,
    ) -> None:
        self.draw, self.fetch = draw, fetch
        self.first = -1
        self.top = 0.0
        with ui.element("div").classes("list").style(f"max-height:{VIEWPORT_PX}px").props("tabindex=0") as self.outer:
            self.inner = ui.element("div").style("position:relative")
        self.outer.on(
            "scroll",
            self._scrolled,
            throttle=0.08,
            trailing_events=True,
            js_handler=("(e) => { if (e.target === e.currentTarget || true) emit(e.target.scrollTop) }"),
        )
        if fetch is None:
            self.reset(count)

    def reset(self, count: int) -> None:
        """Show a new list of `count` rows from the top."""
        self._size(count)
        self._show(0.0)

    async def load(self, count: int) -> None:
        """As `reset`, for a list whose rows are fetched."""
        self._size(count)
        await self._bring(0.0)

    def _size(self, count: int) -> None:
        self.count = count
        self.height = min(count * HEIGHT_PX, MAX_HEIGHT_PX)
        self.inner.style(f"height:{self.height}px")
        self.outer.run_method("scrollTo", 0, 0)

    async def _scrolled(self, event: Any) -> None:
        top = float(event.args)
        if abs(first_row(top, self.count) - self.first) >= OVERSCAN_ROWS // 2:
            await self._bring(top)

    async def _bring(self, top: float) -> None:
        """Fetch and show the rows at a scroll position, unless it has moved on meanwhile."""
        self.top = top
        if self.fetch is not None:
            await self.fetch(self._window(top))
        if self.top == top:
            self._show(top)

    def _window(self, top: float) -> range:
        first = first_row(top, self.count)
        return range(
            max(0, first - OVERSCAN_ROWS), min(self.count, first + VIEWPORT_PX // HEIGHT_PX + OVERSCAN_ROWS + 1)
        )

    def _show(self, top: float) -> None:
        self.first = first_row(top, self.count)
        window = self._window(top)
        begin = window.start
        scaled = self.count * HEIGHT_PX > MAX_HEIGHT_PX
        offset = top - (self.first - begin) * HEIGHT_PX if scaled else begin * HEIGHT_PX
        self.inner.clear()
        with self.inner, ui.element("div").style(f"position:absolute;left:0;right:0;top:{max(offset, 0):.0f}px"):
            for position in window:
                self.draw(position)


def first_row(top: float, count: int) -> int:
    """The first row at a scroll position in pixels."""
    height = min(count * HEIGHT_PX, MAX_HEIGHT_PX)
    if count * HEIGHT_PX <= MAX_HEIGHT_PX:
        return int(top // HEIGHT_PX)
    share = min(1.0, top / max(1, height - VIEWPORT_PX))
    return round(share * (count - VIEWPORT_PX // HEIGHT_PX))
