"""JSON read strictly: faults name line and column, a key that stands twice is seen, long arrays come row by row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

from sartor.base.errors import DataError
from sartor.base.types import RawRow

CHUNK = 1 << 20
NEAR_END = 32
"""An error so few characters before the end of what was read may be none once more is read: a cut `\\u12`, `NaN`."""
BLANK = re.compile(r"[ \t\n\r]*")


class DuplicateKeyDict(dict[str, Any]):
    """An object some of whose keys stand in it twice; JSON readers keep the last and say nothing."""

    duplicate_key: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    keys = [key for key, _ in pairs]
    marked = DuplicateKeyDict(value)
    marked.duplicate_key = tuple(dict.fromkeys(key for key in keys if keys.count(key) > 1))
    return marked


def parse_json(text: str, where: str) -> Any:
    """JSON, with an error that names line and column and says when a comment or a trailing comma is the cause.

    An object with a key twice is a `Twice`.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"{where}, line {error.lineno}, column {error.colno}"
        raise DataError(f"The JSON is broken: {error.msg}.", place, _cause(text, error.pos)) from None
    except (RecursionError, ValueError) as error:  # ValueError: an integer of more than 4300 digits
        raise _json_error(error, where) from None


def _json_error(error: Exception, where: str) -> DataError:
    if isinstance(error, RecursionError):
        return DataError("The JSON is nested too deeply.", where, "Flatten it.")
    return DataError(f"The JSON cannot be read: {error}.", where, "Write that number as text.")


def _cause(text: str, position: int) -> str:
    rest, before = text[position : position + 2], text[max(0, position - 4096) : position].rstrip()
    if rest.startswith(("//", "/*", "#")) or re.search(r"(//|/\*|#)[^\n\"]*$", before):
        return "JSON has no comments: delete it."
    if (rest[:1] in ("}", "]") and before.endswith(",")) or re.match(r"\s*[}\]]", text[position + 1 : position + 999]):
        return "JSON allows no comma before } or ]: delete it."
    return "Mend that place."


class _Rows:
    """Counts, for one row, the keys that stand twice in any of its objects."""

    def __init__(self) -> None:
        self.duplicates: list[str] = []
        self.decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            keys = [key for key, _ in pairs]
            self.duplicates.append(next(key for key in keys if keys.count(key) > 1))
        return value

    def raw(self, row: int, line: int | None, value: Any) -> RawRow:
        if self.duplicates:
            return RawRow(row, line, None, fault=f"the key {self.duplicates[0]!r} stands twice")
        return RawRow(row, line, value)


class LineReader(_Rows):
    """JSON texts of one line each."""

    def read(self, text: str, row: int, line: int) -> RawRow:
        """One line as a row, or the fault of that row."""
        self.duplicates.clear()
        try:
            value = self.decoder.decode(text)
        except (ValueError, RecursionError) as error:
            return RawRow(row, line, None, fault=str(error))
        return self.raw(row, line, value)


class ArrayReader(_Rows):
    """A stream that holds `[row, …]`, or an object whose `data` is such; never more than a few rows in memory.

    Errors raised are DataErrors naming line and column.
    """

    def __init__(self, stream: TextIO, where: str) -> None:
        super().__init__()
        self.stream, self.where = stream, where
        self.buffer, self.position, self.ended = "", 0, False
        self.line, self.column, self.counted = 1, 1, 0  # of buffer[counted]

    def rows(self) -> Iterator[RawRow]:
        """Each element with its number from 1 and the line on which it begins."""
        first = self._next()
        if first == "[":
            yield from self._array()
        elif first == "{":
            yield from self._data()
        else:
            self._value()  # a broken file is called so
            self._no_list()
        if self._next():
            self._fail("Extra data", self.position)

    def _data(self) -> Iterator[RawRow]:
        found = False
        self.position += 1
        more = self._next() != "}"
        if not more:
            self.position += 1
        while more:
            if self._next() != '"':
                self._fail("Expecting property name enclosed in double quotes", self.position)
            key = self._value()
            self._expect(":")
            if key == "data" and self._next() == "[":
                if found:
                    self._fail("the key 'data' stands twice", self.position)
                found = True
                yield from self._array()
            else:
                self._value()
            more = self._expect(",", "}") == ","
        if not found:
            self._no_list()

    def _array(self) -> Iterator[RawRow]:
        self.position += 1
        number = 0
        if self._next() == "]":
            self.position += 1
            return
        while True:
            self._next()
            line = self._line()
            value = self._value()
            number += 1
            yield self.raw(number, line, value)
            if self._expect(",", "]") == "]":
                return

    def _no_list(self) -> NoReturn:
        raise DataError("The file holds no list of rows.", self.where, 'Write [{…}, {…}], or {"data": [{…}]}.')

    def _expect(self, *characters: str) -> str:
        """Step over the next character, which must be one of these."""
        found = self._next()
        if found not in characters or not found:
            self._fail(f"Expecting {' or '.join(map(repr, characters))}", self.position)
        self.position += 1
        return found

    def _next(self) -> str:
        """The next character that is no white space, or nothing at the end; `position` points at it."""
        while True:
            self.position = BLANK.match(self.buffer, self.position).end()  # type: ignore[union-attr]
            if self.position < len(self.buffer):
                return self.buffer[self.position]
            if self.ended:
                return ""
            self._more()

    def _value(self) -> Any:
        """The JSON value that begins here; reads on, twice as much each time, while it may be cut."""
        self._next()
        while True:
            self.duplicates.clear()
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.position)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self.buffer) - NEAR_END
                if self.ended or not cut:
                    self._fail(error.msg, error.pos)
            except (RecursionError, ValueError) as error:
                raise _json_error(error, f"{self.where}, line {self._line()}") from None
            else:
                if end < len(self.buffer) or self.ended:
                    self.position = end
                    return value
            self._more()

    def _more(self) -> None:
        self._count(self.position)
        rest = self.buffer[self.position :]
        new = self.stream.read(max(CHUNK, len(rest)))
        self.ended = not new
        self.buffer, self.position, self.counted = rest + new, 0, 0

    def _count(self, position: int) -> None:
        """Move the known line and column on to a place further on."""
        if lines := self.buffer.count("\n", self.counted, position):
            self.line += lines
            self.column = position - self.buffer.rindex("\n", self.counted, position)
        else:
            self.column += position - self.counted
        self.counted = position

    def _line(self) -> int:
        self._count(self.position)
        return self.line

    def _fail(self, message: str, position: int) -> NoReturn:
        self._count(max(position, self.counted))
        place = f"{self.where}, line {self.line}, column {self.column}"
        raise DataError(f"The JSON is broken: {message}.", place, _cause(self.buffer, position)) from None
