"""A page's messages in its visitor's language; they are looked up in the project's gettext catalogs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request

from sartor.base.i18n import LANGUAGES, Text, as_text

COOKIE = "sartor-lang"
"""Holds the language that the visitor chose."""


@dataclass(frozen=True, slots=True)
class Translator:
    """Renders messages in one language: `t("Import")`, `t("{left} left", left="5 min")`, `t(error.what)`."""

    lang: str

    def __call__(self, message: str | Text, /, **params: object) -> str:
        """The English `message`, a literal with named placeholders, or a Text, rendered in `lang`."""
        return as_text(message, params).render(self.lang)

    def plural(self, one: str, many: str, /, *, count: int, **params: object) -> str:
        """A message with a number: `t.plural("{count} row", "{count} rows", count=3)`."""
        return Text(one, {"count": count, **params}, many).render(self.lang)

    def lookup(self, names: Mapping[str, Text], value: str) -> str:
        """The name of a value; the value itself where a file holds one that is not in the table."""
        return self(names[value]) if value in names else value


def translator_for(request: Request) -> Translator:
    """The translator of a request's language."""
    return Translator(negotiate_language(request.cookies.get(COOKIE), request.headers.get("accept-language", "")))


def negotiate_language(chosen: str | None, accepted: str = "") -> str:
    """The language that the visitor chose, else the first of an Accept-Language header with a catalog, else English."""
    if chosen in LANGUAGES:
        return str(chosen)
    for part in accepted.split(","):
        code = part.partition(";")[0].strip().lower().partition("-")[0]
        if code in LANGUAGES:
            return code
    return "en"
