"""An adapter's config as peft may have it: its patterns resolved in bounded time, nothing looked up elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import regex

from sartor.base.errors import ModelError

PLAIN = re.compile(r"[\w.]*")
"""A name, which no engine takes long to match."""
PATTERN_S = 2.0
"""Seconds for one pattern on all module names. Honest ones take milliseconds; `(a+)+$` would take years."""
MAX_RANK = 1 << 15
NAMED_BY_PATTERN = ("target_modules", "exclude_modules")
NUMBERED_BY_PATTERN = ("rank_pattern", "alpha_pattern")
NOT_SUPPORTED = ("layer_replication", "feedforward_modules", "target_parameters")


def read_adapter_config(folder: Path, model: Any) -> Any:
    """peft's config of the adapter in `folder`, with names of this model's modules in place of patterns.

    Raises: ModelError for a pattern that takes too long, or for what Sartor does not load.
    """
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(str(folder))
    rank = getattr(config, "r", 1)
    if not isinstance(rank, int) or not 0 < rank <= MAX_RANK:
        raise _refused(folder, "r")
    for name in NOT_SUPPORTED:
        if getattr(config, name, None):
            raise _refused(folder, name)
    modules = [name for name, _ in model.named_modules()]
    for name in NAMED_BY_PATTERN:
        value = getattr(config, name, None)
        if isinstance(value, str) and value != "all-linear":
            setattr(config, name, _matches(value, modules, folder, name))
    for name in NUMBERED_BY_PATTERN:
        if value := getattr(config, name, None):
            setattr(config, name, _by_name(value, modules, folder, name))
    layers = getattr(config, "layers_pattern", None) or ()
    for pattern in (layers,) if isinstance(layers, str) else layers:
        if not PLAIN.fullmatch(str(pattern)):
            raise _refused(folder, "layers_pattern")
    config.base_model_name_or_path = getattr(model, "name_or_path", None)  # peft would look another one up on the hub
    return config


def _by_name(numbers: dict[str, Any], modules: Iterable[str], folder: Path, setting: str) -> dict[str, Any]:
    """Names as they are, and the names that a pattern matches in place of it."""
    made: dict[str, Any] = {}
    for pattern, number in numbers.items():
        if PLAIN.fullmatch(pattern):
            made[pattern] = number
            continue
        for name in _matches(rf"(.*\.)?({pattern})", modules, folder, setting):
            made.setdefault(re.escape(name), number)
    return made


def _matches(pattern: str, modules: Iterable[str], folder: Path, setting: str) -> list[str]:
    """The module names that a pattern matches as a whole."""
    try:
        compiled = regex.compile(pattern)
        return [name for name in modules if compiled.fullmatch(name, timeout=PATTERN_S, concurrent=False)]
    except TimeoutError:
        raise ModelError(
            "The pattern {setting} in adapter_config.json takes too long to match.",
            folder,
            "Replace it by a list of module names.",
            setting=setting,
        ) from None
    except (regex.error, RecursionError, MemoryError) as error:
        raise ModelError(
            "The pattern {setting} in adapter_config.json is invalid: {reason}.",
            folder,
            "Replace it by a list of module names.",
            setting=setting,
            reason=error,
        ) from None


def _refused(folder: Path, setting: str) -> ModelError:
    return ModelError(
        "Sartor does not load adapters with this {setting}.",
        folder,
        "Merge it into its base with the program that made it, and load the merged model.",
        setting=setting,
    )
