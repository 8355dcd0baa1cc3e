"""YAML of settings, read with a budget: no aliases, little depth, and every failure is a ConfigError with its place."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

import yaml

from sartor.base.errors import ConfigError
from sartor.base.i18n import Text, tr

MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 20
"""Levels of lists and mappings; settings need two."""
MAX_INTEGER = 2**63 - 1


def load_yaml(text: str, where: str | Text) -> Any:
    """The value of a YAML text. Raises: ConfigError for invalid, deep or long YAML, and for aliases."""
    if len(text) > MAX_CHARACTERS:
        size = tr("{count:,} characters", count=len(text))
        raise ConfigError("The text is too long for settings.", size, "Choose a settings file.")
    try:
        depth = 0
        for event in yaml.parse(text):
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError("YAML aliases are not supported in settings.", where, "Write out each value.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ConfigError("The YAML is nested too deeply for settings.", where, "Flatten it.")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ConfigError(
            "Invalid YAML: {reason}.", _place(error, where), "Fix the YAML there.", reason=reason
        ) from None
    except (ValueError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        # What PyYAML's constructors let through: impossible dates, integers of thousands of digits, wrong tags.
        reason = str(error) or type(error).__name__
        raise ConfigError("Invalid YAML: {reason}.", where, "Write the value in quotes.", reason=reason) from None


def _place(error: yaml.YAMLError, where: str | Text) -> str | Text:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return where
    place = {"line": mark.line + 1, "column": mark.column + 1}
    if not where:
        return tr("line {line}, column {column}", **place)
    return tr("{file}, line {line}, column {column}", file=where, **place)


def unusable(value: Any, depth: int = 0) -> Text | None:
    """Why a value cannot be a setting, wherever in it the cause is; None if it can."""
    if depth > MAX_DEPTH:
        return tr("is nested too deeply")
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            return tr("contains half of a surrogate pair, which is not valid Unicode text")
        return tr("contains a NUL character") if "\0" in value else None
    if isinstance(value, float) and not isfinite(value):
        return tr("must be a finite number, not {value!r}", value=value)
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return tr("is an integer of more than 64 bits")
    return next((found for part in _parts(value) if (found := unusable(part, depth + 1))), None)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
