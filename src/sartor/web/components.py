"""What every page shares: header, navigation, language and theme, and the small parts that pages are made of."""

from __future__ import annotations

import asyncio
import copy
import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from fastapi import Request
from nicegui import run, ui
from nicegui.language import Language

from sartor.base.errors import SartorError
from sartor.web.i18n import Words, spoken
from sartor.web.workspace import visible

T = TypeVar("T")
PAGES = ("data", "train", "runs", "evaluate", "chat", "home")
LANGUAGE, THEME = "sartor-lang", "sartor-theme"
"""Cookies: what a person chose."""
QUASAR: dict[str, Language] = {"en": "en-US", "zh": "zh-CN"}
"""What the components' own labels speak."""
STATE_PILL = {
    "running": "run",
    "finished": "ok",
    "failed": "no",
    "damaged": "no",
    "interrupted": "wait",
    "waiting": "wait",
    "better": "ok",
    "worse": "no",
}


@contextmanager
def page_frame(request: Request, here: str, title: str = "") -> Iterator[Words]:
    """A page inside the frame: `with framed(request, "data") as t: …`; `t` is its texts."""
    t = Words(spoken(request.cookies.get(LANGUAGE), request.headers.get("accept-language", "")))
    client = ui.context.client
    client.page = copy.copy(client.page)  # all visitors of a path share one; the language is this visitor's
    client.page.language = QUASAR[t.lang]
    theme = request.cookies.get(THEME, "auto")
    ui.dark_mode({"dark": True, "light": False}.get(theme))
    ui.page_title(f"{title or t(f'nav.{here}')} · {t('app.title')}")
    path = quote(str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""), safe="/")
    other = "zh" if t.lang == "en" else "en"
    links = "".join(
        f'<a href="/{page}"{" aria-current=page" if page == here else ""}>{html.escape(t(f"nav.{page}"))}</a>'
        for page in PAGES
    )
    shades = "".join(
        f'<a class="to-{shade}" href="/prefer?theme={shade}&amp;back={path}" title="{t("app.theme")}">'
        f"{t(f'app.{shade}')}</a>"
        for shade in ("light", "dark")
    )  # the style sheet shows the one that would change something: only the browser knows what `auto` is
    ui.html(
        f'<a class="skip" href="#content">{t("app.skip")}</a>'
        f'<header class="bar"><div class="bar-in"><a class="brand" href="/"><i></i>{t("app.title")}</a>'
        f'<nav class="nav" aria-label="{t("app.menu")}">{links}</nav>'
        f'<div class="prefs">{shades}<a href="/prefer?lang={other}&amp;back={path}" lang="{other}" '
        f'title="{t("app.language_hint")}">{t("app.language")}</a></div></div></header>',
        sanitize=False,
    ).style("display:contents")  # made of our own texts only
    with ui.element("div").classes("page").props("id=content tabindex=-1"):
        yield t


def text(content: object, classes: str = "", tag: str = "div") -> ui.html:
    """An element with text in it, never markup; control characters and direction marks are made visible."""
    return ui.html(html.escape(visible(content)), tag=tag, sanitize=False).classes(classes)


def heading(title: str, lead: str = "") -> None:
    """The page's title and one sentence about it."""
    with ui.element("div"):
        text(title, tag="h1")
        if lead:
            text(lead, "lead", tag="p")


def card(classes: str = "") -> ui.element:
    return ui.element("section").classes(f"card {classes}")


def line(classes: str = "") -> ui.element:
    return ui.element("div").classes(f"row-line {classes}")


def button(label: str, on_click: Callable[..., Any] | None = None, classes: str = "") -> ui.element:
    """A real button, reachable by keyboard."""
    made = ui.element("button").classes(f"btn {classes}").props("type=button")
    with made:
        text(label, tag="span")
    if on_click:
        made.on("click", on_click)
    return made


def link(label: str, address: str, classes: str = "btn") -> ui.element:
    """A link; `address` is made by us, with names in it quoted."""
    made = ui.element("a").classes(classes)
    made._props["href"] = address
    with made:
        text(label, tag="span")
    return made


def pill(label: str, state: str = "") -> ui.html:
    """A small label in the colour of a state."""
    return text(label, f"pill {STATE_PILL.get(state, '')}", tag="span")


def facts(pairs: Sequence[tuple[str, object]]) -> list[ui.html]:
    """Names and values, aligned. Returns the values' elements, for `retell`."""
    values = []
    with ui.element("div").classes("facts"):
        for name, value in pairs:
            with ui.element("div").classes("fact"):
                text(name, "k")
                values.append(text(value, "v"))
    return values


def set_text(element: ui.html, content: object) -> None:
    """Another text in an element made by `text`; nothing is sent where it is the same."""
    if (shown := html.escape(visible(content))) != element.content:
        element.set_content(shown)


def empty(title: str, next_step: str) -> ui.element:
    """Nothing here yet, and what to do next; more may be put into it."""
    made = ui.element("div").classes("empty")
    with made:
        text(title, tag="b")
        text(next_step)
    return made


def show_error(t: Words, error: BaseException) -> None:
    """An error as its three lines: what, where, what to do."""
    with ui.element("div").classes("notice bad-n").props("role=alert"):
        text(
            t.sentence(error.what.render(t.lang))
            if isinstance(error, SartorError)
            else f"{type(error).__name__}: {error}",
            tag="b",
        )
        if isinstance(error, SartorError):
            if error.where:
                text(f"{t('app.where')}: {error.where}", "small soft")
            if error.fix:
                text(f"{t('app.fix')}: {t.sentence(error.fix.render(t.lang))}", "small")


async def run_in_thread(work: Callable[[], T]) -> T | SartorError:
    """Do something slow in a thread, so that the page stays alive; its SartorError is returned, not raised."""

    def guarded() -> tuple[T | SartorError]:
        try:
            return (work(),)
        except SartorError as error:
            return (error,)

    done = await run.io_bound(guarded)
    if done is None:  # the server is going down
        raise asyncio.CancelledError
    return done[0]


def number(value: object, digits: int = 3) -> str:
    """A figure for a table; a dash where there is none."""
    if isinstance(value, bool) or value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def size(count: float) -> str:
    """Bytes as people say them: `412 B`, `73 kB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


Cell: TypeAlias = "str | Callable[[], Any]"


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Cell]], classes: str = "stack") -> None:
    """A plain table. Columns are (title, classes: num, wide); a cell is a text, or draws itself."""
    with ui.element("div").classes("scroll"), ui.element("table").classes(f"grid-table {classes}"):
        with ui.element("thead"), ui.element("tr"):
            for title, kind in columns:
                text(title, kind, tag="th")
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for (title, kind), cell in zip(columns, row, strict=True):
                        made = ui.element("td").classes(kind)
                        made._props["data-k"] = title if "raw" in kind else title[:1].upper() + title[1:]
                        with made:
                            if isinstance(cell, str):
                                text(cell, tag="span")
                            else:
                                cell()
