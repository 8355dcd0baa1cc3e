"""Errors that people can act on: what happened, where, and what to do; shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SartorError(Exception):
    """Base of every error that a user can cause or mend.

    `what` is one sentence; `where` names a file, row, key or address; `fix` says what to do next.
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.where, self.fix) if line)


class DataError(SartorError):
    """A dataset, its registry or a document cannot be used as it stands."""


class ConfigError(SartorError):
    """A setting is unknown, malformed, or does not fit another one."""


class PromptError(SartorError):
    """A template or a tokenizer cannot render or encode what it is given."""


class ModelError(SartorError):
    """A model, adapter or checkpoint cannot be loaded or does not fit."""


class RunError(SartorError):
    """A run cannot start, resume or go on."""


class ExportError(SartorError):
    """An export failed, or its self-check found a difference."""


class EndpointError(SartorError):
    """A remote model did not answer in a usable way."""


class Interrupted(SartorError):
    """A signal ended the work in an orderly way; `exit_code` is 128 + the signal's number."""

    def __init__(self, signal_number: int, what: str, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.exit_code = 128 + signal_number


def close_matches(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The known names most like `name`, best first; empty when none is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.55)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean …?`, or the whole list where it is short, or nothing."""
    known = list(known)
    if near := close_matches(name, known):
        return f"Did you mean {' or '.join(near)}?"
    return f"There are: {', '.join(sorted(known))}." if 0 < len(known) <= 20 else ""
