"""The page's texts in English and Chinese, one TOML file per language; a key that is missing is our own bug."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from sartor.base.i18n import LANGUAGES
from sartor.base.reasons import fix_of, reason_of
from sartor.base.types import Note


@functools.cache
def catalogue(lang: str) -> Mapping[str, str]:
    """`section.key` → text, of one language."""
    file = resources.files("sartor.web").joinpath(f"texts/{lang}.toml")
    sections = tomllib.loads(file.read_text(encoding="utf-8"))
    return {f"{name}.{key}": text for name, section in sections.items() for key, text in section.items()}


@functools.cache
def explanations() -> Mapping[str, str]:
    """Setting → its explanation in Chinese; the English ones stand in the schema."""
    file = resources.files("sartor.web").joinpath("texts/settings.zh.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


@functools.cache
def sentences() -> tuple[tuple[re.Pattern[str], str], ...]:
    """(pattern of a lower layer's sentence, the same in Chinese), those with the most words of their own first."""
    file = resources.files("sartor.web").joinpath("texts/sentences.zh.toml")
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    ordered = sorted(found.items(), key=lambda item: -len(item[0].replace("{}", "")))
    return tuple((re.compile(re.escape(en).replace(r"\{\}", "(.*)"), re.DOTALL), zh) for en, zh in ordered)


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of one language: `words("data.import")`, `words("runs.steps", count=3)`."""

    lang: str

    def __call__(self, key: str, **params: object) -> str:
        text = catalogue(self.lang)[key]
        return text.format_map(params) if params else text

    def get(self, key: str, default: str) -> str:
        """For keys made of data (a state, an outcome), which a newer file may hold and the catalogue not."""
        return catalogue(self.lang).get(key, default)

    def sentence(self, said: str) -> str:
        """An error, reason or advice in this language; as it stands where nobody has put it into Chinese yet."""
        if self.lang == "zh":
            for pattern, text in sentences():
                if match := pattern.fullmatch(said):
                    pairs = zip(text.split("{}"), (*match.groups(), ""), strict=True)
                    return "".join(part for pair in pairs for part in pair)
        return said

    def note(self, note: Note) -> str:
        """A remark about a dataset: what it is, in how many rows, and what to do."""
        parts = [reason_of(note.code, note.params).render(self.lang)]
        parts += [self("dataset.rows_n", count=note.count)] if note.count > 1 else []
        return " ".join([*parts, fix_of(note.code, note.params).render(self.lang)]).strip()

    def skipped(self, told: Mapping[str, Any]) -> tuple[str, str]:
        """(reason, fix) of a row in a run's ledger; as they were written where an older file holds no parameters."""
        try:
            reason, fix = (of(told["code"], told["params"]).render(self.lang) for of in (reason_of, fix_of))
        except KeyError:
            return str(told["reason"]), str(told["fix"])
        return reason, fix


def spoken(wanted: str | None, accepted: str = "") -> str:
    """The language to show: the one chosen, else the browser's first that we speak, else English."""
    if wanted in LANGUAGES:
        return str(wanted)
    for part in accepted.split(","):
        tag = part.partition(";")[0].strip().lower()[:2]
        if tag in LANGUAGES:
            return tag
    return "en"


def explained(lang: str, key: str, english: str) -> str:
    """What a setting means; English for one that nobody has put into Chinese yet."""
    return explanations().get(key, english) if lang == "zh" else english
