"""Strings that note what a template asks of them, so that it is known for which texts it would do something else.

Most templates that look into texts only search them for fixed strings: `'</think>' in content`. A text without these
strings is then rendered like the placeholder in its place. Everything else that may depend on a text (its length, its
characters) is noted by the method's name, and such texts have to be rendered each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Trace:
    """What a template asked of the texts of one rendering."""

    methods: dict[str, None] = field(default_factory=dict)
    """Methods whose results may depend on any part of a text."""
    needles: dict[str, None] = field(default_factory=dict)
    """Strings that it searched for, and did not find in a placeholder."""
    edges: dict[str, None] = field(default_factory=dict)
    """Characters that it would remove at the ends, and that no placeholder has there."""


TRACE: ContextVar[Trace | None] = ContextVar("template_trace", default=None)
"""The trace of the rendering in this thread, if its texts are placeholders."""
_TRIMMING = {"strip", "lstrip", "rstrip"}
_SEARCHING = {
    "__contains__",
    "__eq__",
    "__ne__",
    "count",
    "endswith",
    "find",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rpartition",
    "rsplit",
    "split",
    "startswith",
}
_UNTRACED = {
    "__new__",
    "__init__",
    "__str__",
    "__class__",
    "__getattribute__",
    "__setattr__",
    "__delattr__",
    "__doc__",
    "__init_subclass__",
    "__subclasshook__",
    "__add__",
    "__dir__",
    "__reduce__",
    "__reduce_ex__",
    "__getnewargs__",
    "__getstate__",
    "__sizeof__",
}


class TracingStr(str):
    """A string that notes the methods called on it, except inserting, `+`, trimming and testing for emptiness."""

    trace: Trace
    own: bool
    """Whether it is a part of a text and nothing else."""

    @classmethod
    def of(cls, text: str, trace: Trace, own: bool = True) -> TracingStr:
        traced = cls(text)
        traced.trace, traced.own = trace, own
        return traced

    def __bool__(self) -> bool:
        return str.__len__(self) > 0

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> TracingStr:
        return TracingStr.of(str.__add__(self, other), self.trace, False)

    def __radd__(self, other: str) -> TracingStr:
        return TracingStr.of(str.__add__(other, self), self.trace, False)


def joined(parts: Iterable[str]) -> str:
    """The parts as one string; it goes on tracing if a part does."""
    parts = list(parts)
    text = "".join(parts)
    if TracingStr not in map(type, parts):
        return text
    written = [part for part in parts if part]
    traced = next(part for part in parts if isinstance(part, TracingStr))
    return TracingStr.of(
        text, traced.trace, len(written) == 1 and isinstance(written[0], TracingStr) and written[0].own
    )


def hidden(result: Any) -> Any:
    """What a filter or call made, perhaps of a text: a string that goes on tracing, while placeholders are rendered."""
    trace = TRACE.get()
    return result if trace is None or type(result) is not str else TracingStr.of(result, trace, False)


def _note(text: TracingStr, name: str, args: tuple[Any, ...], named: bool) -> None:
    if name in _TRIMMING and args in ((), (None,)):
        return
    given: Any = args[0] if args and not named else None
    wanted: Sequence[Any] = given if isinstance(given, tuple) else (given,)
    if name in ("__eq__", "__ne__") and (given == "" if type(given) is str else not isinstance(given, str)):
        return  # no text that is used is empty, and none is a number
    strings = text.own and all(type(needle) is str and needle for needle in wanted)
    if strings and name in _TRIMMING:
        ends = str.__getitem__(text, slice(0, 1)) + str.__getitem__(text, slice(-1, None))
        if not any(character in ends for character in given):
            text.trace.edges.update(dict.fromkeys(given))
            return
    elif strings and name in _SEARCHING and not any(str.__contains__(text, needle) for needle in wanted):
        text.trace.needles.update(dict.fromkeys(wanted))
        return
    text.trace.methods[name] = None


def _traced(result: Any, before: TracingStr) -> Any:
    if type(result) is str:
        return TracingStr.of(result, before.trace, before.own)
    if type(result) in (list, tuple):
        return type(result)(_traced(item, before) for item in result)
    return result


def _tracing_method(name: str) -> Callable[..., Any]:
    original = getattr(str, name)

    def method(self: TracingStr, *args: Any, **kwargs: Any) -> Any:
        _note(self, name, args, bool(kwargs))
        return _traced(original(self, *args, **kwargs), self)

    method.__qualname__ = name  # not `__name__`, by which the sandbox would take `format` for the plain one
    return method


for _name in dir(str):
    if _name not in _UNTRACED and callable(getattr(str, _name)):
        setattr(TracingStr, _name, _tracing_method(_name))
