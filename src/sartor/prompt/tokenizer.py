"""What the prompt layer needs of a tokenizer, as a Protocol, and its control tokens; knows no templates."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tokenizers

from sartor.base.errors import PromptError
from sartor.base.types import IntArray

FIRST_SECRET, LAST_SECRET = "\U000f5a00", "\U000f5a01"
"""Private-use characters around a control token's secret name; a text that holds one is refused."""
BREAK = "\U000f5a02"
"""Put inside a control token's string in tools and calls, so that it is none while the template is read."""


class Tokenizer(Protocol):
    """The part of transformers' fast tokenizers that is used here."""

    chat_template: Any
    eos_token: str | None
    eos_token_id: int | None
    name_or_path: str

    @property
    def backend_tokenizer(self) -> tokenizers.Tokenizer: ...

    @property
    def special_tokens_map(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class ControlToken:
    """One control token found in a text: its place in characters, its id, and its own string."""

    start: int
    stop: int
    id: int
    content: str


class Codec:
    """Texts to ids with one tokenizer, and its control tokens: every added token of more than one visible character.

    Added tokens count as control tokens whether special or not (`<think>` often is not). Single characters and runs
    of spaces or line breaks, which some vocabularies add, are ordinary text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise PromptError(
                "The tokenizer has no fast backend.", str(tokenizer.name_or_path), "Use a model with a tokenizer.json."
            )
        self._backend: tokenizers.Tokenizer = backend
        added = {number: token.content for number, token in backend.get_added_tokens_decoder().items()}
        self.control = {number: text for number, text in added.items() if len(text.replace("▁", " ").strip()) > 1}
        self._is_control = np.zeros(max(self.control, default=0) + 2, dtype=bool)
        self._is_control[list(self.control)] = True

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The Rust tokenizer without truncation or padding, whatever others set on theirs since."""
        if self._backend.truncation is None and self._backend.padding is None:
            return self._backend
        return self._quiet

    @functools.cached_property
    def _longest_first(self) -> list[str]:
        return sorted(self.control.values(), key=len, reverse=True)

    @functools.cached_property
    def _quiet(self) -> tokenizers.Tokenizer:
        copy = tokenizers.Tokenizer.from_str(self._backend.to_str())
        copy.no_truncation()
        copy.no_padding()
        return copy

    @functools.cached_property
    def exact(self) -> tokenizers.Tokenizer:
        """The same ids, with offsets that keep whitespace."""
        return tokenizers.Tokenizer.from_str(json.dumps(_untrimmed(json.loads(self._quiet.to_str()))))

    @functools.cached_property
    def secret(self) -> tuple[tokenizers.Tokenizer, IntArray]:
        """A tokenizer that knows each control token by a secret name only, and the table from its ids to the real ones.

        A text in which the template's control tokens stand under their secret names is cut exactly as before, and
        the strings of control tokens that people wrote are ordinary text to it.
        """
        description = _untrimmed(json.loads(self._quiet.to_str()))
        for token in description["added_tokens"]:
            if token["id"] in self.control:
                token["content"] = secret_name(token["id"])
        copy = tokenizers.Tokenizer.from_str(json.dumps(description))
        table = np.arange(copy.get_vocab_size(with_added_tokens=True) + len(self.control) + 1, dtype=np.int32)
        for number, token in copy.get_added_tokens_decoder().items():
            if token.content.startswith(FIRST_SECRET):
                table[number] = int(token.content[1:-1])
        return copy, table

    def is_control(self, ids: IntArray) -> npt.NDArray[np.bool_]:
        """Which of the ids are control tokens; same shape."""
        return self._is_control[np.minimum(ids, len(self._is_control) - 1)]

    def ids(self, text: str) -> list[int]:
        """The ids of a text as it stands, nothing put before or after it."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def scan(self, text: str) -> list[ControlToken]:
        """The control tokens in a text, as the tokenizer sees them."""
        encoding = self.exact.encode(text, add_special_tokens=False)
        found = []
        for number, (start, stop) in zip(encoding.ids, encoding.offsets):
            if number in self.control:
                content = self.control[number]
                found.append(
                    ControlToken(start, stop, number, content if content in text[start:stop] else text[start:stop])
                )
        return found

    def token_id(self, token: str) -> int | None:
        """The id of an added token, or None when the tokenizer has none of that string."""
        number: int | None = self._backend.token_to_id(token)
        return number if number in self.control else None

    def broken(self, value: Any) -> Any:
        """JSON-like data with the strings of control tokens broken by `BREAK`, keys too; others as they are."""
        if isinstance(value, str):
            for content in self._longest_first:
                if content in value:
                    value = value.replace(content, content[:1] + BREAK + content[1:])
            return value
        if isinstance(value, Mapping):
            return {self.broken(key): self.broken(item) for key, item in value.items()}
        return [self.broken(item) for item in value] if isinstance(value, Sequence) else value


def secret_name(number: int) -> str:
    """The name under which the secret tokenizer knows control token `number`."""
    return f"{FIRST_SECRET}{number}{LAST_SECRET}"


def _untrimmed(value: Any) -> Any:
    """A tokenizer's description with offsets that keep whitespace (`trim_offsets` off, wherever it stands)."""
    for part in ("pre_tokenizer", "post_processor"):
        _switch_off_trimming(value.get(part))
    return value


def _switch_off_trimming(part: Any) -> None:
    if isinstance(part, dict):
        if "trim_offsets" in part:
            part["trim_offsets"] = False
        for inner in part.values():
            _switch_off_trimming(inner)
    elif isinstance(part, list):
        for inner in part:
            _switch_off_trimming(inner)
