"""Plug-ins: a folder is an extension point, a file in it is one plug-in under its own name; nothing is listed."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from sartor.base.errors import ConfigError, did_you_mean


@functools.cache
def names(package: str) -> tuple[str, ...]:
    """The plug-ins of a package such as `sartor.evaluation.metrics`, sorted; files starting with `_` are none."""
    folder = importlib.import_module(package)
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_")))


def plugin(package: str, name: str) -> ModuleType:
    """Import one plug-in by its file's name.

    Raises: ConfigError naming the nearest plug-in when there is none of that name.
    """
    if name not in names(package):
        kind = package.rpartition(".")[2]
        raise ConfigError(f"{name!r} is none of the {kind}.", "", did_you_mean(name, names(package)))
    return importlib.import_module(f"{package}.{name}")


def plugins(package: str) -> Iterator[ModuleType]:
    """Every plug-in of a package, imported, in the order of their names."""
    return (plugin(package, name) for name in names(package))
