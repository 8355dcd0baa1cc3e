"""Prompt files that people can edit: roles, places to fill, a manner of writing; knows no documents and no models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sartor.base.errors import DataError, did_you_mean
from sartor.base.types import Message, Role
from sartor.data.encoding import read_text

PROMPTS = Path(__file__).parent / "prompts"
LANGUAGES = ("en", "zh")
PLACES = ("passage", "sentence", "pairs", "section", "style")
ROLE = re.compile(r"^\[(system|user|assistant)\][ \t]*\n", re.MULTILINE)
PLACE = re.compile(r"\{\{|\}\}|\{(\w+)\}")
NOT_AGAIN = {"en": "Ask something else than these:", "zh": "不要再问下面这些问题："}


@dataclass(frozen=True, slots=True)
class Prompt:
    """Turns with places to fill; `style` is a manner of writing that stands at {style}, else before the last turn."""

    turns: tuple[tuple[Role, str], ...]
    style: str = ""
    language: str = "en"

    @property
    def by_sentence(self) -> bool:
        """Asked for one sentence at a time, one question each, as small models need it; else for a whole passage."""
        return any("{sentence}" in text for _, text in self.turns)

    def messages(
        self, passage: str, *, section: str = "", pairs: int = 1, sentence: str = "", asked: Iterable[str] = ()
    ) -> tuple[Message, ...]:
        """What a model is sent; `asked` are questions on the passage that should not come again."""
        filled = {
            "passage": passage,
            "sentence": sentence,
            "pairs": str(pairs),
            "section": section,
            "style": self.style,
        }
        turns = [Message(role, fill(text, filled)) for role, text in self.turns]
        last = turns[-1].text
        if self.style and not any("{style}" in text for _, text in self.turns):
            last = f"{self.style}\n\n{last}"
        if before := list(asked):
            last += "\n\n" + "\n".join([NOT_AGAIN[self.language], *(f"- {question}" for question in before)])
        return (*turns[:-1], Message(turns[-1].role, last))


def prompt_file(language: str, *, multi_turn: bool = False, small: bool = False) -> Path:
    """Our own file: for a model that writes JSON, or for a small one."""
    return PROMPTS / f"{'small.' if small else 'conversation.' if multi_turn else ''}{language}.txt"


def read_prompt(
    language: str,
    file: Path | None = None,
    style: Path | None = None,
    *,
    multi_turn: bool = False,
    small: bool = False,
) -> Prompt:
    """The user's file or ours, with the style's text. Raises: DataError when it names no {passage} or {sentence}, or
    a place that there is not, or when a file is not there.
    """
    path = file or prompt_file(language, multi_turn=multi_turn, small=small)
    turns = turns_of(_text(path))
    for _, text in turns:
        for found in PLACE.finditer(text):
            if found[1] is not None and found[1] not in PLACES:
                raise DataError(
                    f"The prompt file does not fit: there is no {{{found[1]}}}.",
                    str(path),
                    f"{did_you_mean(found[1], PLACES)} Other braces are doubled: {{{{ }}}}.",
                )
    if turns[-1][0] != "user" or not any(place in text for _, text in turns for place in ("{passage}", "{sentence}")):
        raise DataError(
            "The prompt file does not fit: it asks about nothing.",
            str(path),
            "Its last turn is the user's, and it names {passage} or {sentence}.",
        )
    return Prompt(turns, _text(style).strip() if style else "", language)


def turns_of(text: str) -> tuple[tuple[Role, str], ...]:
    """Lines `[system]`, `[user]`, `[assistant]` begin turns; a text without them is one turn of the user."""
    parts = ROLE.split("\n" + text if ROLE.match(text) else text)
    if len(parts) == 1:
        return (("user", text.strip()),)
    return tuple((cast(Role, role), said.strip()) for role, said in zip(parts[1::2], parts[2::2], strict=True))


def fill(text: str, values: Mapping[str, str]) -> str:
    """Places get their values, doubled braces become one; a line whose only place is an empty style goes."""
    if not values.get("style"):
        text = re.sub(r"^[ \t]*\{style\}[ \t]*\n?", "", text, flags=re.MULTILINE)
    return PLACE.sub(lambda found: found[0][0] if found[1] is None else values[found[1]], text).rstrip()


def language_of(texts: Iterable[str]) -> str:
    """`zh` where more than a fifth of the letters are Chinese, else `en`."""
    chinese = letters = 0
    for text in texts:
        chinese += sum("\u4e00" <= character <= "\u9fff" for character in text)
        letters += sum(character.isalpha() for character in text)
    return "zh" if chinese * 5 > letters else "en"


def _text(path: Path) -> str:
    try:
        return read_text(path).text.replace("\r\n", "\n")
    except OSError as error:
        raise DataError(f"The file cannot be read: {error.strerror}.", str(path), "Check the path.") from None
