"""What one rendering of a chat template may cost, in steps and characters: the same on every machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence, Sized
from contextvars import ContextVar
from typing import Any

import jinja2
from jinja2.utils import Namespace

STEPS, STEPS_PER_MESSAGE = 10_000_000, 10_000
"""A step is about one node of the template's syntax tree that is evaluated: 0.1 to 0.3 µs."""
CHARACTERS, CHARACTERS_PER_CHARACTER = 1 << 26, 64
"""Characters read or written, for any conversation, and in addition for each character of this one. Public templates
touch each character of a conversation three to ten times."""
ITEM = 32
"""Characters that an element of a list counts for: about what it takes in memory."""
CALL_STEPS = 16
"""Steps of a filter, of a call, and of each item of `map`, `select` and their like."""
MAX_BITS = 1 << 16
MAX_DIGITS = 3
"""Digits of a width or precision in a format."""


class OverBudget(jinja2.TemplateRuntimeError):
    """The template does more than any conversation needs."""


class Budget:
    """What is left of it. `spend` and `read` raise OverBudget."""

    __slots__ = ("characters", "steps")

    def __init__(self, characters: int = 0, messages: int = 0) -> None:
        self.steps = STEPS + STEPS_PER_MESSAGE * messages
        self.characters = CHARACTERS + CHARACTERS_PER_CHARACTER * characters

    def spend(self, steps: int) -> None:
        self.steps -= max(steps, 1)
        if self.steps < 0:
            raise OverBudget("it takes too many steps")

    def read(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise OverBudget("it makes or reads too much text")

    def read_all(self, value: Any) -> None:
        """Everything in a value, as often as it occurs."""
        if type(value) is str:
            self.read(len(value))
        elif value is not None and type(value) not in (int, float, bool):
            self.read(weight(value, self.characters))

    def read_flat(self, value: Any) -> None:
        """A text, or the elements of a list without what is in them."""
        if isinstance(value, str):
            self.read(str.__len__(value))
        elif isinstance(value, (list, tuple, dict, MappingView)):
            self.read(ITEM * len(value))

    def numbers(self, values: Sequence[Any]) -> None:
        """Numbers that may be a width or a count: as many characters."""
        for value in values:
            if isinstance(value, int):
                self.read(abs(value))

    def count(self, items: Iterator[Any]) -> Iterator[Any]:
        """The items of a lazy filter, each paid for when it is made."""
        for item in items:
            self.spend(CALL_STEPS)
            self.read(ITEM)
            yield item


CURRENT: ContextVar[Budget] = ContextVar("template_budget")
"""The budget of the rendering in this thread."""


def weight(value: Any, most: int) -> int:
    """Characters of the texts in a value, and `ITEM` for everything else; counting stops above `most`.

    What occurs twice counts twice: forty lists, each with the one before twice, are a short program and a text of 2⁴⁰.
    A `TracingStr` does not notice.
    """
    total, left = 0, [value]
    while left and total <= most:
        item = left.pop()
        kind = type(item)
        if kind is str:
            total += len(item) + 2
            continue
        total += ITEM
        if kind is dict:
            left.extend(item)
            left.extend(item.values())
        elif kind is list or kind is tuple:
            left.extend(item)
        elif item is not None and kind is not bool and kind is not float:
            left.extend(_parts(item))
            total += str.__len__(item) if isinstance(item, str) else 0
            total += item.bit_length() // 3 if isinstance(item, int) else 0
    return total


def _parts(item: Any) -> Iterable[Any]:
    """What is in a container of a rarer kind."""
    if isinstance(item, Mapping):
        return (*item.keys(), *item.values())
    if isinstance(item, (list, tuple, MappingView)):
        return item  # type: ignore[return-value]
    if isinstance(item, Namespace):
        return (object.__getattribute__(item, "_Namespace__attrs"),)
    return ()


def depth(value: Any) -> int:
    """How deep lists and dicts are nested; the value has been weighed."""
    deepest, left = 0, [(value, 1)]
    while left:
        item, level = left.pop()
        deepest = max(deepest, level)
        if isinstance(item, Mapping):
            left += [(inner, level + 1) for inner in item.values()]
        elif isinstance(item, (list, tuple)):
            left += [(inner, level + 1) for inner in item]
    return deepest


def pay_operator(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Pay for `+ - * ** %` before it is computed."""
    if operator == "+" and type(left) is str and type(right) is str:
        budget.read(len(left) + len(right))
    elif operator == "%" and isinstance(left, str):
        pay_format(budget, left, right, r"%[^A-Za-z%]*", r"\*")
    elif isinstance(left, int) and isinstance(right, int):
        bits = {"*": left.bit_length() + right.bit_length(), "**": left.bit_length() * max(right, 0)}.get(operator, 0)
        if bits > MAX_BITS:
            raise OverBudget("it computes a number of too many digits")
        budget.read(bits // 8)
    elif operator == "*":
        for text, count in ((left, right), (right, left)):
            if isinstance(text, (str, list, tuple)) and isinstance(count, int):
                size = str.__len__(text) if isinstance(text, str) else ITEM * len(text)
                budget.read(size * max(count, 0))
    else:
        budget.read_flat(left)
        budget.read_flat(right)


def pay_format(budget: Budget, text: str, values: Any, conversion: str, refused: str) -> None:
    """Pay for a format: every conversion might write all values. Widths are short, and never come from a value."""
    found = re.findall(conversion, str.__str__(text))
    if any(re.search(rf"\d{{{MAX_DIGITS + 1},}}|{refused}", part) for part in found):
        raise OverBudget("a format has too large a width")
    each = weight(values, budget.characters) + 10**MAX_DIGITS
    budget.read(str.__len__(text) + len(found) * each)


def pay_replace(budget: Budget, text: Any, old: Any, new: Any) -> None:
    if all(isinstance(part, str) for part in (text, old, new)):
        budget.read(str.__len__(text) + str.count(text, str.__str__(old)) * str.__len__(new))


def pay_join(budget: Budget, separator: Any, items: Any) -> None:
    budget.read_all(items)
    if isinstance(separator, str):
        count = str.__len__(items) if isinstance(items, str) else len(items) if isinstance(items, Sized) else 0
        budget.read(str.__len__(separator) * count)


def pay_split(budget: Budget, text: str, separator: Any) -> None:
    """Pieces take more memory than their characters."""
    spaces = str.__len__(text) // 2
    pieces = str.count(text, str.__str__(separator)) if isinstance(separator, str) and separator else spaces
    budget.read((pieces + 1) * ITEM)
