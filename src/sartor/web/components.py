"""What every page shares: header, navigation, language and theme, and the small building blocks of pages."""

from __future__ import annotations

import asyncio
import copy
import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar, get_args
from urllib.parse import quote

from fastapi import Request
from nicegui import run, ui
from nicegui.language import Language

from sartor.base.errors import SartorError
from sartor.base.i18n import LANGUAGES, tr
from sartor.base.reasons import fix_of, reason_of
from sartor.base.types import Note
from sartor.web.i18n import Translator, translator_for
from sartor.web.workspace import visible

T = TypeVar("T")
PAGES = {
    "data": tr("Data"),
    "train": tr("Train"),
    "runs": tr("Runs"),
    "evaluate": tr("Evaluate"),
    "chat": tr("Chat"),
    "export": tr("Export"),
}
"""The pages of the navigation, in order."""
THEME = "sartor-theme"
"""Cookie: the theme that the visitor chose."""
THEMES = {"light": tr("Light"), "dark": tr("Dark")}
OWN_NAME = tr("English")
"""Each catalog translates it as the name of its own language."""
DEFAULT_PACKS: dict[str, Language] = {"en": "en-US", "zh": "zh-CN"}
"""Quasar language packs, for languages that have several."""
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
def page_frame(request: Request, current: str, title: str = "") -> Iterator[Translator]:
    """A page inside the frame: `with page_frame(request, "data") as t: …`; `t` translates for this visitor."""
    t = translator_for(request)
    client = ui.context.client
    client.page = copy.copy(client.page)  # all visitors of a path share one; the language is this visitor's
    client.page.language = quasar_language(t.lang)
    ui.dark_mode({"dark": True, "light": False}.get(request.cookies.get(THEME, "auto")))
    ui.page_title(f"{title or t(PAGES[current])} · Sartor")
    ui.html(_header(t, request, current), sanitize=False).style("display:contents")  # contains our own texts only
    with ui.element("div").classes("page").props("id=content tabindex=-1"):
        yield t


def _header(t: Translator, request: Request, current: str) -> str:
    """The brand, the navigation, and the links that change theme and language."""
    path = quote(str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""), safe="/")
    pages = "".join(
        f'<a href="/{page}"{" aria-current=page" if page == current else ""}>{html.escape(t(name))}</a>'
        for page, name in PAGES.items()
    )
    themes = "".join(
        f'<a class="to-{theme}" href="/prefer?theme={theme}&amp;back={path}" title="{t("Light or dark theme")}">'
        f"{t(name)}</a>"
        for theme, name in THEMES.items()
    )  # the style sheet hides the active one: only the browser knows what `auto` is
    languages = "".join(
        f'<a href="/prefer?lang={lang}&amp;back={path}" lang="{lang}" title="{t("Change language")}">'
        f"{OWN_NAME.render(lang)}</a>"
        for lang in LANGUAGES
        if lang != t.lang
    )
    return (
        f'<a class="skip" href="#content">{t("Skip to content")}</a>'
        '<header class="bar"><div class="bar-in"><a class="brand" href="/"><i></i>Sartor</a>'
        f'<nav class="nav" aria-label="{t("Pages")}">{pages}</nav>'
        f'<div class="prefs">{themes}{languages}</div></div></header>'
    )


def quasar_language(lang: str) -> Language:
    """The language pack for the components' own labels; English where there is none for `lang`."""
    packs = get_args(Language)
    regional = [pack for pack in packs if pack.startswith(f"{lang}-")]
    exact = [pack for pack in packs if pack == lang]
    pack: Language = DEFAULT_PACKS.get(lang) or [*exact, *regional, "en-US"][0]
    return pack


def text(content: object, classes: str = "", tag: str = "div") -> ui.html:
    """An element with escaped text; control characters and direction marks are made visible."""
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
    """A link. `address` must be built by us, with names in it URL-quoted."""
    made = ui.element("a").classes(classes)
    made._props["href"] = address
    with made:
        text(label, tag="span")
    return made


def pill(label: str, state: str = "") -> ui.html:
    """A small label in the color of a state."""
    return text(label, f"pill {STATE_PILL.get(state, '')}", tag="span")


def facts(pairs: Sequence[tuple[str, object]]) -> list[ui.html]:
    """Names and values, aligned. Returns the values' elements, for `set_text`."""
    values = []
    with ui.element("div").classes("facts"):
        for name, value in pairs:
            with ui.element("div").classes("fact"):
                text(name, "k")
                values.append(text(value, "v"))
    return values


def set_text(element: ui.html, content: object) -> None:
    """Change the text of an element made by `text`; nothing is sent if it is the same."""
    if (shown := html.escape(visible(content))) != element.content:
        element.set_content(shown)


def empty(title: str, next_step: str) -> ui.element:
    """A placeholder for an empty list: what is missing and what to do next. Returns it, to add a button."""
    made = ui.element("div").classes("empty")
    with made:
        text(title, tag="b")
        text(next_step)
    return made


def show_error(t: Translator, error: BaseException) -> None:
    """An error as its three lines: what happened, where, and how to fix it."""
    with ui.element("div").classes("notice bad-n").props("role=alert"):
        if not isinstance(error, SartorError):
            text(f"{type(error).__name__}: {error}", tag="b")
            return
        text(t(error.what), tag="b")
        if error.where:
            text(f"{t('Where')}: {t(error.where)}", "small soft")
        if error.fix:
            text(f"{t('Fix')}: {t(error.fix)}", "small")


def note_text(t: Translator, note: Note) -> str:
    """A note about a dataset: what it is, in how many rows, and what to do."""
    parts = [t(reason_of(note.code, note.params))]
    if note.count > 1:
        parts.append(t.plural("({count} row)", "({count} rows)", count=note.count))
    return " ".join([*parts, t(fix_of(note.code, note.params))]).strip()


async def run_in_thread(work: Callable[[], T]) -> T | SartorError:
    """Run blocking work in a thread, so that the page stays responsive. Its SartorError is returned, not raised."""

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
    """A number for a table; a dash for None."""
    if isinstance(value, bool) or value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def size(count: float) -> str:
    """A byte count with a decimal unit: `412 B`, `73 kB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


Cell: TypeAlias = "str | Callable[[], Any]"


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Cell]], classes: str = "stack") -> None:
    """A plain table. Columns are (title, classes: num, wide); a cell is a text or a function that draws it."""
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
