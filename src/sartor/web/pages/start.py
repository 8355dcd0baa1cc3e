"""The address `/`: goes on to the page that a person needs next."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui

from sartor.web.workspace import Workspace


def add_to(desk: Workspace) -> None:
    @ui.page("/")
    def start(request: Request) -> None:
        ui.navigate.to("/runs" if any(desk.runs.glob("*/config.yaml")) else "/data")
