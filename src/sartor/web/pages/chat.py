"""The page `/chat`."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui

from sartor.web.desk import Desk
from sartor.web.frame import framed, heading


def add_to(desk: Desk) -> None:
    @ui.page("/chat")
    def page(request: Request) -> None:
        with framed(request, "chat") as t:
            heading(t("nav.chat"))
