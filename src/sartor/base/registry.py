"""Plug-ins: a folder is an extension point, a file in it holds one plug-in or several; nothing is listed by hand.

A built-in plug-in is an object named `PLUGIN` (or a tuple named `PLUGINS`) in a file of the extension point's package.
An installed package adds its own through an entry point, in the group `sartor.<extension point>`:

    [project.entry-points."sartor.metrics"]
    my-metric = "my_package.metrics:PLUGIN"
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Generic, Protocol, TypeVar

from sartor.base.errors import ConfigError, did_you_mean


@functools.cache
def names(package: str) -> tuple[str, ...]:
    """The files of a plug-in package such as `sartor.evaluation.metrics`, sorted, without those that start with `_`."""
    spec = importlib.util.find_spec(package)  # does not run the package's own code
    folders = spec.submodule_search_locations if spec else None
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folders) if not m.name.startswith("_")))


def modules(package: str) -> Iterator[ModuleType]:
    """The files of a plug-in package, imported, in the order of their names."""
    return (importlib.import_module(f"{package}.{name}") for name in names(package))


@functools.cache
def available(package: str) -> tuple[str, ...]:
    """The names of built-in and installed plug-ins, sorted, from file names and entry points: none is imported."""
    installed = {entry.name for entry in entry_points(group=f"sartor.{package.rpartition('.')[2]}")}
    return tuple(sorted({*names(package), *installed}))


class Plugin(Protocol):
    """What every plug-in has: the name under which settings, command line and files know it."""

    @property
    def name(self) -> str: ...


P = TypeVar("P", bound=Plugin)


class Registry(Generic[P]):
    """The plug-ins of one extension point, built-in ones and those of installed packages, by name.

    `kind` is the word for one of them in messages ("exporter"), `package` the folder of the built-in ones
    ("sartor.exporters"), `contract` the class that each must be an instance of. Nothing is imported before it is asked
    for. A built-in plug-in wins over an installed one of the same name.
    """

    def __init__(self, kind: str, package: str, contract: type[P]) -> None:
        self.kind, self.package, self.contract = kind, package, contract
        self.group = f"sartor.{package.rpartition('.')[2]}"
        self._plugins: Mapping[str, P] | None = None

    def names(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(sorted(self._load()))

    def all(self) -> Iterator[P]:
        """Every plug-in, in the order of their names."""
        return (self._load()[name] for name in self.names())

    def get(self, name: str) -> P:
        """Raises: ConfigError naming the nearest when there is none of that name."""
        if name not in self._load():
            raise ConfigError(
                "Unknown {kind} {name!r}.", "", did_you_mean(name, self.names()), kind=self.kind, name=name
            )
        return self._load()[name]

    def _load(self) -> Mapping[str, P]:
        if self._plugins is None:
            found: dict[str, P] = {}
            for entry in entry_points(group=self.group):
                found[entry.name] = self._checked(_loaded(entry), f"entry point {self.group}: {entry.name}")
            for module in modules(self.package):
                values = module.PLUGINS if hasattr(module, "PLUGINS") else (module.PLUGIN,)
                found.update({value.name: self._checked(value, module.__name__) for value in values})
            self._plugins = found
        return self._plugins

    def _checked(self, value: object, where: str) -> P:
        if not isinstance(value, self.contract):
            raise ConfigError(
                "The {kind} does not implement {contract}.",
                where,
                "Subclass it; docs/reference/plugins.md describes it.",
                kind=self.kind,
                contract=self.contract.__name__,
            )
        return value


def _loaded(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except Exception as error:  # a stranger's code: whatever it raises, say whose it is
        raise ConfigError(
            "The plug-in {name!r} of an installed package cannot be loaded: {reason}",
            entry.value,
            "Update or uninstall the package.",
            name=entry.name,
            reason=f"{type(error).__name__}: {error}",
        ) from error
