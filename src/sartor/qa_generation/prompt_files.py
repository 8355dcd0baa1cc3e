"""Prompt files that people can edit: turns with placeholders, and a style of writing."""

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
PLACEHOLDERS = ("passage", "sentence", "pairs", "section", "style")
ROLE = re.compile(r"^\[(system|user|assistant)\][ \t]*\n", re.MULTILINE)
PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(\w+)\}")
NOT_AGAIN = {"en": "Ask something else than these:", "zh": "不要再问下面这些问题："}


@dataclass(frozen=True, slots=True)
class Prompt:
    """Turns with placeholders; `style` says how to write: it fills {style}, or else goes before the last turn."""

    turns: tuple[tuple[Role, str], ...]
    style: str = ""
    language: str = "en"

    @property
    def by_sentence(self) -> bool:
        """Whether it asks one question about one sentence, as small models need it, not about a whole passage."""
        return any("{sentence}" in text for _, text in self.turns)

    def messages(
        self, passage: str, *, section: str = "", pairs: int = 1, sentence: str = "", asked: Iterable[str] = ()
    ) -> tuple[Message, ...]:
        """The messages to send; `asked` are questions on the passage that should not be repeated."""
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
        if earlier := list(asked):
            last += "\n\n" + "\n".join([NOT_AGAIN[self.language], *(f"- {question}" for question in earlier)])
        return (*turns[:-1], Message(turns[-1].role, last))


def prompt_file(language: str, *, multi_turn: bool = False, small: bool = False) -> Path:
    """The built-in file, for a model that can write JSON or for a small one."""
    return PROMPTS / f"{'small.' if small else 'conversation.' if multi_turn else ''}{language}.txt"


def read_prompt(
    language: str,
    file: Path | None = None,
    style: Path | None = None,
    *,
    multi_turn: bool = False,
    small: bool = False,
) -> Prompt:
    """The user's prompt file or the built-in one, with the text of the style file.

    Raises: DataError for an unreadable file, an unknown placeholder, or a prompt without {passage} and {sentence}.
    """
    path = file or prompt_file(language, multi_turn=multi_turn, small=small)
    turns = turns_of(_text(path))
    for _, text in turns:
        for found in PLACEHOLDER.finditer(text):
            if found[1] is not None and found[1] not in PLACEHOLDERS:
                raise DataError(
                    "Unknown placeholder {name!r} in the prompt file.",
                    path,
                    "{hint} Double all other braces: {{{{ }}}}.",
                    name=found[1],
                    hint=did_you_mean(found[1], PLACEHOLDERS),
                )
    if turns[-1][0] != "user" or not any(name in text for _, text in turns for name in ("{passage}", "{sentence}")):
        raise DataError(
            "The prompt file asks about nothing.",
            path,
            "Its last turn must be the user's, and some turn must contain {passage} or {sentence}.",
        )
    return Prompt(turns, _text(style).strip() if style else "", language)


def turns_of(text: str) -> tuple[tuple[Role, str], ...]:
    """The lines `[system]`, `[user]` and `[assistant]` begin turns; a text without them is one user turn."""
    parts = ROLE.split("\n" + text if ROLE.match(text) else text)
    if len(parts) == 1:
        return (("user", text.strip()),)
    return tuple((cast(Role, role), content.strip()) for role, content in zip(parts[1::2], parts[2::2], strict=True))


def fill(text: str, values: Mapping[str, str]) -> str:
    """Fill placeholders and undouble braces; a line that only holds an empty {style} is removed."""
    if not values.get("style"):
        text = re.sub(r"^[ \t]*\{style\}[ \t]*\n?", "", text, flags=re.MULTILINE)
    return PLACEHOLDER.sub(lambda found: found[0][0] if found[1] is None else values[found[1]], text).rstrip()


def language_of(texts: Iterable[str]) -> str:
    """`zh` if more than a fifth of the letters are Chinese, else `en`."""
    chinese = letters = 0
    for text in texts:
        chinese += sum("\u4e00" <= character <= "\u9fff" for character in text)
        letters += sum(character.isalpha() for character in text)
    return "zh" if chinese * 5 > letters else "en"


def _text(path: Path) -> str:
    try:
        return read_text(path).text.replace("\r\n", "\n")
    except OSError as error:
        raise DataError("Could not read the file: {error}.", path, "Check the path.", error=error.strerror) from None
