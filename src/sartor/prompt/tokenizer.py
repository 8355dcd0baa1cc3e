"""The tokenizer interface used here, its control tokens, and texts to ids without making user text a control token."""

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
"""Private-use characters around the secret name of a control token; texts that contain one are skipped."""
BREAK = "\U000f5a02"
"""Inserted into control-token strings within tools and tool calls, so that they are plain text while rendering."""


class Tokenizer(Protocol):
    """The part of transformers' fast tokenizers that Sartor uses for prompts."""

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
    """One control token found in a text: its position in characters, its id, and its string."""

    start: int
    stop: int
    id: int
    content: str


class Codec:
    """One tokenizer, and its control tokens: every added token of more than one visible character.

    Added tokens count as control tokens whether they are special or not (`<think>` often is not). Single characters
    and runs of spaces or line breaks, which some vocabularies add, are ordinary text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._backend = backend_of(tokenizer)
        added = {number: token.content for number, token in self._backend.get_added_tokens_decoder().items()}
        self.control = {number: text for number, text in added.items() if len(text.replace("▁", " ").strip()) > 1}
        self._is_control = np.zeros(max(self.control, default=0) + 2, dtype=bool)
        self._is_control[list(self.control)] = True

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The Rust tokenizer without truncation and padding, even if other code has set them since."""
        if self._backend.truncation is None and self._backend.padding is None:
            return self._backend
        return self._plain

    @functools.cached_property
    def _longest_first(self) -> list[str]:
        return sorted(self.control.values(), key=len, reverse=True)

    @functools.cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        copy = tokenizers.Tokenizer.from_str(self._backend.to_str())
        copy.no_truncation()
        copy.no_padding()
        return copy

    @functools.cached_property
    def exact(self) -> tokenizers.Tokenizer:
        """A tokenizer with the same ids whose offsets include whitespace."""
        return tokenizers.Tokenizer.from_str(json.dumps(_untrimmed(json.loads(self._plain.to_str()))))

    @functools.cached_property
    def secret(self) -> tuple[tokenizers.Tokenizer, IntArray]:
        """A tokenizer with secret names for the control tokens, and the table from its ids to the real ones.

        If the template's control tokens are written with their secret names, a text is tokenized exactly as before,
        except that the control-token strings in user text are ordinary text.
        """
        description = _untrimmed(json.loads(self._plain.to_str()))
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
        """The ids of a text, with nothing added before or after it."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def scan(self, text: str) -> list[ControlToken]:
        """The control tokens that the tokenizer finds in a text."""
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
        """The id of a control token, or None if the tokenizer does not have it."""
        number: int | None = self._backend.token_to_id(token)
        return number if number in self.control else None

    def broken(self, value: Any) -> Any:
        """JSON-like data with `BREAK` inserted into every control-token string, in keys too."""
        if isinstance(value, str):
            for content in self._longest_first:
                if content in value:
                    value = value.replace(content, content[:1] + BREAK + content[1:])
            return value
        if isinstance(value, Mapping):
            return {self.broken(key): self.broken(item) for key, item in value.items()}
        return [self.broken(item) for item in value] if isinstance(value, Sequence) else value


def backend_of(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The Rust tokenizer inside. Raises: PromptError for a slow tokenizer, which has none."""
    backend: tokenizers.Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise PromptError("This is not a fast tokenizer.", tokenizer.name_or_path, "Use a model with a tokenizer.json.")
    return backend


def control_token_state(tokenizer: Tokenizer) -> object:
    """What decides a tokenizer's control tokens and template variables; equal as long as neither changes."""
    backend = backend_of(tokenizer)
    added = {number: token.content for number, token in backend.get_added_tokens_decoder().items()}
    return id(backend), added, {key: str(value) for key, value in tokenizer.special_tokens_map.items()}


def secret_name(number: int) -> str:
    """The name of control token `number` in the secret tokenizer."""
    return f"{FIRST_SECRET}{number}{LAST_SECRET}"


def _untrimmed(value: Any) -> Any:
    """A tokenizer's JSON description with `trim_offsets` off everywhere, so that offsets include whitespace."""
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
