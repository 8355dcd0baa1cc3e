"""Errors that people can act on: what happened, where, and what to do; shown without a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sartor.base.i18n import Text, as_text, tr

MAX_NAME = 200
"""Characters of a name that a slip is looked for in."""


class SartorError(Exception):
    """Base of every error that a user can cause or fix.

    `what` is one sentence; `where` names a file, row, key or address; `fix` says what to do next. `what` and `fix` are
    messages with named placeholders, filled from the keyword arguments when they are shown. `code` is stable: programs
    decide by it, never by the words.

    Example:
        >>> print(SartorError("Duplicate key {key!r}.", "data.json, row 3", "Delete one of them.", key="input"))
        Duplicate key 'input'.
        data.json, row 3
        Delete one of them.
    """

    exit_code = 1
    code = "error"

    def __init__(
        self, what: str | Text, where: object = "", fix: str | Text = "", *, code: str = "", **params: Any
    ) -> None:
        super().__init__(what)
        self.what = as_text(what, params)
        self.where = as_text(where if isinstance(where, Text) else str(where))
        self.fix = as_text(fix, params)
        self.code = code or type(self).code

    def to_json(self) -> dict[str, Any]:
        """For files: the code, and the messages with their params."""
        parts = {"what": self.what.to_json(), "where": self.where.to_json(), "fix": self.fix.to_json()}
        return {"code": self.code, "exit": self.exit_code, **parts}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SartorError:
        """What `to_json` wrote, as a plain SartorError with its code."""
        what, where, fix = (Text.from_json(value.get(name) or "") for name in ("what", "where", "fix"))
        return SartorError(what, where, fix, code=str(value.get("code", "")))

    def __str__(self) -> str:
        return "\n".join(str(part) for part in (self.what, self.where, self.fix) if part)


class DataError(SartorError):
    """A dataset, its dataset_info.json entry or a document cannot be read or used."""

    code = "data"


class ConfigError(SartorError):
    """A setting is unknown, malformed, or conflicts with another one."""

    code = "config"


class PromptError(SartorError):
    """A template or a tokenizer cannot render or encode its input."""

    code = "prompt"


class ModelError(SartorError):
    """A model, adapter or checkpoint cannot be loaded, or they do not match."""

    code = "model"


class RunError(SartorError):
    """A run cannot start, resume or continue."""

    code = "run"


class ExportError(SartorError):
    """An export failed, or its self-check found a difference."""

    code = "export"


class EndpointError(SartorError):
    """A remote model gave no usable answer."""

    code = "endpoint"


class Interrupted(SartorError):
    """A signal stopped the work cleanly; `exit_code` is 128 + the signal number."""

    code = "interrupted"

    def __init__(
        self, signal_number: int, what: str | Text, where: object = "", fix: str | Text = "", **params: Any
    ) -> None:
        super().__init__(what, where, fix, **params)
        self.exit_code = 128 + signal_number


def close_matches(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The known names that `name` may be a slip of, best first: one edit for every four characters (a swap of two is
    one), or a beginning of at least three; upper and lower case, `-`, `_` and spaces are the same."""
    if not 0 < len(name) <= MAX_NAME:
        return []
    from rapidfuzz.distance import OSA

    plain = _plain(name)
    found = []
    for candidate in known:
        other = _plain(candidate)
        allowed = (min(len(plain), len(other)) + 2) // 4
        if other.startswith(plain) and len(plain) >= 3:
            found.append((0, len(other), candidate))
        elif (edits := OSA.distance(plain, other, score_cutoff=allowed)) <= allowed:
            found.append((edits, 0, candidate))
    return [candidate for _, _, candidate in sorted(found)[:limit]]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def did_you_mean(name: str, known: Iterable[str]) -> Text:
    """`Did you mean …?`, or the list of known names if it is short, or an empty Text."""
    known = list(known)
    if near := close_matches(name, known):
        return tr("Did you mean {names}?", names=", ".join(near))
    return tr("Known: {names}.", names=", ".join(sorted(known))) if 0 < len(known) <= 20 else Text("")
