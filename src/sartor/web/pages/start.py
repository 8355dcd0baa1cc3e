"""The start page `/`: redirects to the runs, or to the data page before the first run."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui

from sartor.web.workspace import Workspace


def add_to(workspace: Workspace) -> None:
    @ui.page("/home")
    @ui.page("/")
    def start(request: Request) -> None:
        ui.navigate.to("/runs" if any(workspace.runs.glob("*/config.yaml")) else "/data")
