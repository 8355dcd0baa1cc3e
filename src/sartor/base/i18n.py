"""Messages in the reader's language: the English text with named placeholders is the key of a gettext catalog.

`tr("Duplicate key {key!r}.", key=key)` is a value; it becomes words where it is shown (`str()`, `render("zh")`). The
catalogs are `locale/<language>/LC_MESSAGES/sartor.po`, compiled to `.mo` beside them by `make messages`.
"""

from __future__ import annotations

import functools
import gettext
import locale
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

DOMAIN = "sartor"
LOCALE_DIR = Path(__file__).parents[1] / "locale"
LANGUAGES = ("en", *sorted(file.parts[-3] for file in LOCALE_DIR.glob(f"*/LC_MESSAGES/{DOMAIN}.mo")))
"""English, and every language that has a compiled catalog."""

_shown_in: ContextVar[str | None] = ContextVar("sartor_language", default=None)


class _PlainNames(Formatter):
    """Placeholders are names, never attributes or items: a template may come from a file that somebody else wrote."""

    def get_field(self, field_name: str, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        return kwargs[field_name], field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if re.search(r"\d{3}", format_spec):  # a width of gigabytes
            raise ValueError(format_spec)
        return str(super().format_field(value, format_spec))


_FORMATTER = _PlainNames()


def language() -> str:
    """The language to show: the innermost `shown_in`, else `SARTOR_LANG`, else the locale's, else English."""
    if chosen := _shown_in.get():
        return chosen
    wanted = next((v for name in ("SARTOR_LANG", "LC_ALL", "LC_MESSAGES", "LANG") if (v := os.environ.get(name))), "")
    code = re.split(r"[_.@-]", (wanted or locale.getlocale()[0] or "").lower())[0]
    return code if code in LANGUAGES else "en"


@contextmanager
def shown_in(lang: str) -> Iterator[None]:
    """Render every message inside in this language."""
    token = _shown_in.set(lang)
    try:
        yield
    finally:
        _shown_in.reset(token)


@functools.cache
def _catalog(lang: str) -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALE_DIR, [lang], fallback=True)


@dataclass(frozen=True, slots=True)
class Text:
    """A message not yet rendered. `params` fill the placeholders; a param may be a Text itself.

    With `plural`, `params["count"]` chooses between `message` (one) and `plural`.
    """

    message: str
    params: Mapping[str, Any] = field(default_factory=dict)
    plural: str = ""

    def render(self, lang: str | None = None) -> str:
        """In `lang`, else in `language()`; English where the catalog has no translation."""
        lang = lang or language()
        if not self.message:
            return ""
        if self.plural:
            shown = _catalog(lang).ngettext(self.message, self.plural, self.params["count"])
        else:
            shown = _catalog(lang).gettext(self.message)
        if not self.params:  # a finished text, perhaps with braces
            return shown
        with shown_in(lang):  # for the params that are Texts
            try:
                return _FORMATTER.vformat(shown, (), self.params)
            except (KeyError, ValueError, IndexError, TypeError):  # not a format string, as `{"a": 1}`
                return shown

    def to_json(self) -> dict[str, Any]:
        """For files that outlive the process: the English text, and what it takes to render it again."""
        params = {k: v.to_json() if isinstance(v, Text) else _plain(v) for k, v in self.params.items()}
        return {"text": self.render("en"), "message": self.message, "params": params, "plural": self.plural}

    @classmethod
    def from_json(cls, value: str | Mapping[str, Any]) -> Text:
        """What `to_json` wrote; a plain string is taken as it stands."""
        if isinstance(value, str):
            return cls(value)
        params = {k: cls.from_json(v) if isinstance(v, dict) else v for k, v in value["params"].items()}
        return cls(value["message"], params, value["plural"])

    def __str__(self) -> str:
        return self.render()

    def __format__(self, spec: str) -> str:
        return format(self.render(), spec)

    def __bool__(self) -> bool:
        return bool(self.message)

    def __hash__(self) -> int:
        return hash((self.message, self.plural))


def tr(message: str, /, **params: Any) -> Text:
    """A message to translate; `message` must be a literal, so that it is extracted into the catalogs."""
    return Text(message, params)


def ntr(one: str, many: str, /, *, count: int, **params: Any) -> Text:
    """A message with a number: `ntr("{count} row", "{count} rows", count=n)`."""
    return Text(one, {"count": count, **params}, many)


def as_text(value: str | Text, params: Mapping[str, Any] | None = None) -> Text:
    """A Text as it is; a string as a message with `params`."""
    return value if isinstance(value, Text) else Text(value, params or {})


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
