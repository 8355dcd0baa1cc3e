"""Joins the pages, the upload route and the guard into one ASGI application; the pages themselves are in pages/."""

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
from sartor.web.jobs import Jobs
from sartor.web.origin_check import LOOPBACK, App, OriginCheck
from sartor.web.run_monitor import RunMonitors
from sartor.web.workspace import Workspace

STATIC = Path(__file__).parent / "static"
YEAR_S = 365 * 24 * 3600
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20"><rect width="20" height="20" rx="6" fill="#0b6e66"/>'
    '<path d="M5 15 15 5" stroke="#fff" stroke-width="2" stroke-dasharray="3 2"/></svg>'
)


def create_app(
    desk: Workspace, hosts: Iterable[str] = LOOPBACK, *, any_address: bool = False, password: str | None = None
) -> App:
    """The whole application, guard outermost. NiceGUI keeps its pages globally: one desk to a process."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.mount("/sartor-static", StaticFiles(directory=STATIC), name="sartor-static")
    uploads.add_to(app, desk)

    @app.get("/prefer")
    def prefer(lang: str = "", theme: str = "", back: str = "/") -> RedirectResponse:
        """Keep the language or theme in a cookie, and go back to a page of ours."""
        inner = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
        answer = RedirectResponse(back if inner else "/", status_code=303)
        if lang in LANGUAGES:
            answer.set_cookie(components.LANGUAGE, lang, max_age=YEAR_S, samesite="lax", httponly=True)
        if theme in ("light", "dark"):
            answer.set_cookie(components.THEME, theme, max_age=YEAR_S, samesite="lax", httponly=True)
        return answer

    ui.add_head_html(
        '<link rel="stylesheet" href="/sartor-static/style.css"><script defer src="/sartor-static/page.js"></script>',
        shared=True,
    )
    jobs = Jobs(desk.jobs, desk.folder)
    nicegui.timer(1.0, jobs.advance)
    given = {"desk": desk, "jobs": jobs, "watches": RunMonitors()}
    for name in ("start", "dataset", "run", "generate", *components.PAGES):
        module = import_module(f"sartor.web.pages.{name}")
        wanted = inspect.signature(module.add_to).parameters
        module.add_to(*(given[parameter] for parameter in wanted))
    ui.run_with(app, title="Sartor", favicon=FAVICON, show_welcome_message=False, reconnect_timeout=30.0)
    return OriginCheck(PasswordAuth(app, password) if password else app, hosts, any_address=any_address)
