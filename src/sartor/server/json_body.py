"""Reads a request's JSON strictly and within limits, and says where it is wrong."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_DEPTH = 64
"""Nested arrays and objects. A tool's schema needs about ten."""
_HALF = re.compile("[\ud800-\udfff]")


class BadJson(ValueError):
    """The body is not JSON, or JSON that another program might read differently."""


def read_json(body: bytes) -> Any:
    """The value. Raises: BadJson with the reason and, where there is one, line and column."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"The body is not UTF-8: byte {error.start + 1} is 0x{body[error.start]:02x}.") from None
    try:
        value = json.loads(text, parse_constant=_constant, parse_float=_number, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise BadJson(f"Invalid JSON: {error.msg}, line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise _too_deep() from None
    except _Constant as constant:
        raise BadJson(f"{constant} is not a number in JSON, {_place_of(str(constant), text)}.") from None
    except BadJson:
        raise
    except ValueError:  # Python's own limit on the digits of an integer
        raise BadJson("A number in the JSON has too many digits.") from None
    _check(value)
    return value


def _check(value: Any) -> None:
    """Refuse deep values, and half characters (`"\\ud800"`), which cannot be written as UTF-8 again."""
    left: list[tuple[Any, tuple[str | int, ...]]] = [(value, ())]
    while left:
        item, path = left.pop()
        if isinstance(item, str):
            if half := _HALF.search(item):
                where = ".".join(map(str, path)) or "body"
                raise BadJson(f"{where}: half of a surrogate pair, \\u{ord(half[0]):04x}.")
        elif isinstance(item, (dict, list)):
            if len(path) >= MAX_DEPTH:
                raise _too_deep()
            parts = item.items() if isinstance(item, dict) else enumerate(item)
            if isinstance(item, dict):
                left += [(key, path) for key in item]
            left += [(inner, (*path, key)) for key, inner in parts]


def _too_deep() -> BadJson:
    return BadJson(f"The JSON is nested more than {MAX_DEPTH} deep.")


class _Constant(Exception):
    """NaN or an infinity, which Python reads and JSON does not have."""


def _constant(name: str) -> Any:
    raise _Constant(name)


def _place_of(name: str, text: str) -> str:
    """Line and column of a bare word outside of texts."""
    found = (m for m in re.finditer(r'"(?:[^"\\]|\\.)*"|-?[A-Za-z]+', text) if m[0] == name)
    start = next((match.start() for match in found), 0)
    return f"line {text.count(chr(10), 0, start) + 1}, column {start - text.rfind(chr(10), 0, start)}"


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadJson(f"The number {digits[:40]} is out of range.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BadJson(f"The key {repeated[:80]!r} occurs twice in one object.")
    return found
