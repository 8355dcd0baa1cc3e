"""Builds the ASGI application from the pages, the upload route, the origin check and the login."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from nicegui import app as nicegui
from nicegui import ui
from starlette.staticfiles import StaticFiles

from sartor.base.i18n import LANGUAGES
from sartor.web import components, uploads
from sartor.web.auth import PasswordAuth
from sartor.web.i18n import COOKIE
from sartor.web.jobs import Jobs
from sartor.web.origin_check import LOOPBACK, App, OriginCheck
from sartor.web.reader import Reader
from sartor.web.run_monitor import RunMonitors
from sartor.web.workspace import Workspace

STATIC = Path(__file__).parent / "static"
YEAR_S = 365 * 24 * 3600
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20"><rect width="20" height="20" rx="6" fill="#0b6e66"/>'
    '<path d="M5 15 15 5" stroke="#fff" stroke-width="2" stroke-dasharray="3 2"/></svg>'
)


def create_app(
    workspace: Workspace, hosts: Iterable[str] = LOOPBACK, *, any_address: bool = False, password: str | None = None
) -> App:
    """The application, with the origin check outermost. NiceGUI keeps its pages globally: one workspace per process."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.mount("/sartor-static", StaticFiles(directory=STATIC), name="sartor-static")
    uploads.add_to(app, workspace)

    @app.get("/prefer")
    def prefer(lang: str = "", theme: str = "", back: str = "/") -> RedirectResponse:
        """Save the language or theme in a cookie and redirect back; never to another site."""
        local = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
        response = RedirectResponse(back if local else "/", status_code=303)
        if lang in LANGUAGES:
            response.set_cookie(COOKIE, lang, max_age=YEAR_S, samesite="lax", httponly=True)
        if theme in ("light", "dark"):
            response.set_cookie(components.THEME, theme, max_age=YEAR_S, samesite="lax", httponly=True)
        return response

    ui.add_head_html(
        '<link rel="stylesheet" href="/sartor-static/style.css"><script defer src="/sartor-static/page.js"></script>',
        shared=True,
    )
    jobs = Jobs(workspace.jobs, workspace.folder, workspace.model_dirs)
    nicegui.timer(1.0, jobs.advance)
    reader = Reader(workspace)
    nicegui.on_shutdown(reader.close)
    given = {"workspace": workspace, "jobs": jobs, "monitors": RunMonitors(), "reader": reader}
    for name in ("start", "dataset", "run", "generate", *components.PAGES):
        module = import_module(f"sartor.web.pages.{name}")
        wanted = inspect.signature(module.add_to).parameters
        module.add_to(*(given[parameter] for parameter in wanted))
    ui.run_with(app, title="Sartor", favicon=FAVICON, show_welcome_message=False, reconnect_timeout=30.0)
    return OriginCheck(PasswordAuth(app, password) if password else app, hosts, any_address=any_address)
