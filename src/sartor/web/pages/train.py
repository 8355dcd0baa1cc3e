"""The page `/train`."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui

from sartor.web.desk import Desk
from sartor.web.frame import framed, heading


def add_to(desk: Desk) -> None:
    @ui.page("/train")
    def page(request: Request) -> None:
        with framed(request, "train") as t:
            heading(t("nav.train"))
