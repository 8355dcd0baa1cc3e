"""The texts in a row of any shape, by their paths, and the row with other texts in these places."""

from __future__ import annotations

from typing import Any


def leaves(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], str]]:
    """(path, text) of every string in a row; null counts as an empty string."""
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in leaves(part, (*place, key))]
    if isinstance(value, list):
        return [leaf for key, part in enumerate(value) for leaf in leaves(part, (*place, key))]
    return [(place, value or "")] if isinstance(value, str) or value is None else []


def changed(value: Any, texts: dict[tuple[Any, ...], str], place: tuple[Any, ...] = ()) -> Any:
    """The row with these texts at their paths; a null that is still empty stays null."""
    if isinstance(value, dict):
        return {key: changed(part, texts, (*place, key)) for key, part in value.items()}
    if isinstance(value, list):
        return [changed(part, texts, (*place, key)) for key, part in enumerate(value)]
    if place in texts and not (value is None and not texts[place]):
        return texts[place]
    return value
