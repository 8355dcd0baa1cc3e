"""Constrained decoding: which tokens may come next so that an answer follows a grammar, by llguidance."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartor.base.errors import SartorError

MAX_WHITESPACE = 32
"""Characters between two parts of a JSON value: a small model would else go on with blanks until its limit."""
_JSON_OPTIONS = {"whitespace_pattern": rf"[ \n\r\t]{{1,{MAX_WHITESPACE}}}", "lenient": False}


class GrammarError(SartorError):
    """A JSON schema or a grammar cannot be followed: it is malformed, too large, or has an unsupported keyword."""

    code = "grammar"


@dataclass(frozen=True, slots=True)
class Grammar:
    """A compiled grammar; each answer gets a `Guide` of its own."""

    matcher: Any

    def start(self) -> Guide:
        return Guide(self.matcher.deep_copy())


class Guide:
    """Follows one answer through its grammar."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher
        self._dead_end = False

    @property
    def failed(self) -> str:
        """Why the grammar cannot be followed any further; empty while it can."""
        if self._dead_end:
            return "none of this model's tokens may come next"
        error: str = self._matcher.get_error()
        return error.partition("\n")[0]

    @property
    def done(self) -> bool:
        """Whether the answer is complete and nothing may follow."""
        stopped: bool = self._matcher.is_stopped()
        return stopped and not self._matcher.is_error()

    def allowed(self, vocabulary: int) -> Tensor:
        """Which of the tokens may come next, (vocabulary,) bool; none if the grammar failed."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        known = np.unpackbits(bits, bitorder="little")[:vocabulary].astype(bool)
        mask = torch.zeros(vocabulary, dtype=torch.bool)
        mask[: len(known)] = torch.from_numpy(known)
        if self.failed:
            return torch.zeros(vocabulary, dtype=torch.bool)
        self._dead_end = not bool(mask.any())
        return mask

    def take(self, token: int) -> None:
        """Go on with the chosen token, which must be allowed."""
        self._matcher.consume_token(token)


class Grammars:
    """Compiles grammars for one tokenizer; safe to share between threads."""

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int]) -> None:
        self._tokenizer, self._stop_ids = tokenizer, list(stop_ids)
        self._known: Any = None
        self._lock = Lock()

    def json(self, schema: Mapping[str, Any]) -> Grammar:
        """JSON that a schema describes. Raises: GrammarError naming the keyword that is not supported."""
        return self.lark(f"start: {json_rule(schema)}\n")

    def lark(self, text: str) -> Grammar:
        """A grammar in llguidance's dialect of Lark. Raises: GrammarError."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self._vocabulary(), LLMatcher.grammar_from_lark(text), log_level=0)
        if matcher.is_error():
            raise GrammarError(
                "This schema cannot be followed: {reason}",
                fix="Leave out the unsupported keyword.",
                reason=_reason(matcher.get_error()),
            )
        return Grammar(matcher)

    def _vocabulary(self) -> Any:
        """The tokenizer as llguidance reads it: made once, because it takes up to a second."""
        with self._lock:
            if self._known is None:
                try:
                    from llguidance.hf import from_tokenizer
                except ImportError:
                    raise GrammarError(
                        "JSON mode and forced tool calls need the package llguidance.",
                        fix="Run: pip install llguidance",
                    ) from None
                try:
                    self._known = from_tokenizer(self._tokenizer, eos_token=self._stop_ids)
                except ValueError as error:
                    raise GrammarError(
                        "This model's tokenizer cannot be constrained: {reason}",
                        fix="Ask for JSON in the prompt instead.",
                        reason=_reason(str(error)),
                    ) from None
            return self._known


def json_rule(schema: Mapping[str, Any]) -> str:
    """A Lark rule for JSON that a schema describes."""
    return "%json " + json.dumps({**schema, "x-guidance": _JSON_OPTIONS}, ensure_ascii=False)


def _reason(text: str) -> str:
    """An error of llguidance as one line, without its own grammar and the place in it."""
    said = text.rpartition("failed to compile JSON schema: ")[2]
    return " ".join(re.split(r"\n\s*\d+ \| ", said)[0].split())[:300]
