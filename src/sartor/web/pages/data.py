"""The page `/data`."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui

from sartor.web.desk import Desk
from sartor.web.frame import framed, heading


def add_to(desk: Desk) -> None:
    @ui.page("/data")
    def page(request: Request) -> None:
        with framed(request, "data") as t:
            heading(t("nav.data"))
