"""The page `/evaluate`."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui

from sartor.web.desk import Desk
from sartor.web.frame import framed, heading


def add_to(desk: Desk) -> None:
    @ui.page("/evaluate")
    def page(request: Request) -> None:
        with framed(request, "evaluate") as t:
            heading(t("nav.evaluate"))
