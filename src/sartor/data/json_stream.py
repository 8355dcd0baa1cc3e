"""Strict JSON: errors name line and column, duplicate keys are noticed, long arrays are read row by row."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

from sartor.base.errors import DataError
from sartor.base.file_budget import max_row_characters, row_too_long
from sartor.base.i18n import Text, tr
from sartor.base.types import RawRow

CHUNK = 1 << 20
NEAR_END = 32
"""Characters: an error this close to the end of the buffer may only be a value cut in two (`\\u12`, `NaN`)."""
CUT_NUMBER = 2
"""Characters: so much of a number that is cut in two can be left over after its valid beginning (`1` of `1e+`)."""
MAX_DEPTH = 100
"""Levels of lists and objects in a row; what writes, renders and shows rows is recursive."""
EXACT_DIGITS = 4000
"""An integer with more digits is kept as its text (Python's own limit is 4300)."""
BLANK = re.compile(r"[ \t\n\r]*")


class DuplicateKeyDict(dict[str, Any]):
    """An object with duplicate keys; the last value of each is kept, as the `json` module does without telling."""

    duplicate_keys: tuple[str, ...] = ()


class LiteralNumber(float):
    """A number that Python would write in another way (`1.10`, `1e999`, `-0`); it keeps the text that the file has."""

    literal: str

    def __new__(cls, literal: str) -> LiteralNumber:
        number = super().__new__(cls, literal)
        number.literal = literal
        return number

    def __reduce__(self) -> tuple[type[LiteralNumber], tuple[str]]:
        return LiteralNumber, (self.literal,)


def _float(literal: str) -> float:
    number = float(literal)
    return number if repr(number) == literal else LiteralNumber(literal)


def _int(literal: str) -> int | float:
    return LiteralNumber(literal) if literal == "-0" or len(literal) > EXACT_DIGITS else int(literal)


def duplicates_of(pairs: list[tuple[str, Any]]) -> tuple[str, ...]:
    """The keys that occur more than once, in order of first appearance."""
    return tuple(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)


def is_too_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """Whether lists and objects are nested in more than `limit` levels."""
    level = [value]
    for _ in range(limit):
        inner = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list)))
        level = [child for children in inner for child in children if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    marked = DuplicateKeyDict(value)
    marked.duplicate_keys = duplicates_of(pairs)
    return marked


def parse_json(text: str, where: str) -> Any:
    """JSON, with an error that names line and column and says when a comment or a trailing comma is the cause.

    An object with duplicate keys is a `DuplicateKeyDict`. Raises: DataError.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
        if is_too_deep(value):
            raise RecursionError
        return value
    except json.JSONDecodeError as error:
        place = _place(where, error.lineno, error.colno)
        raise DataError("Invalid JSON: {error}.", place, _fix(text, error.pos), error=error.msg) from None
    except (RecursionError, ValueError) as error:  # ValueError: an integer of more than 4300 digits
        raise _json_error(error, where) from None


def _place(where: str, line: int, column: int) -> Text:
    return tr("{file}, line {line}, column {column}", file=where, line=line, column=column)


def _json_error(error: Exception, where: str | Text) -> DataError:
    if isinstance(error, RecursionError):
        return DataError("The JSON is nested too deeply.", where, "Flatten it.")
    return DataError("Could not read the JSON: {error}.", where, "Write that number as text.", error=str(error))


def _fix(text: str, position: int) -> Text:
    rest, before = text[position : position + 2], text[max(0, position - 4096) : position].rstrip()
    if rest.startswith(("//", "/*", "#")) or re.search(r"(//|/\*|#)[^\n\"]*$", before):
        return tr("JSON does not allow comments; delete it.")
    if (rest[:1] in ("}", "]") and before.endswith(",")) or re.match(r"\s*[}\]]", text[position + 1 : position + 999]):
        return tr("JSON does not allow a comma before } or ]; delete it.")
    return tr("Fix the JSON there.")


class _Rows:
    """Collects, for one row, the duplicate keys in any of its objects."""

    def __init__(self) -> None:
        self.duplicates: list[str] = []
        self.decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_float=_float, parse_int=_int)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            self.duplicates += duplicates_of(pairs)
        return value

    def raw(self, row: int, line: int | None, value: Any, text: str) -> RawRow:
        """The row, or its fault with `text`, the row as the file has it."""
        if self.duplicates:
            return RawRow(row, line, None, fault=tr("duplicate key {key!r}", key=self.duplicates[0]), text=text)
        if is_too_deep(value):
            return RawRow(row, line, None, fault=tr("nested in more than {limit} levels", limit=MAX_DEPTH), text=text)
        return RawRow(row, line, value)


class LineReader(_Rows):
    """JSON texts of one line each."""

    def read(self, text: str, row: int, line: int) -> RawRow:
        """One line as a row, or the fault of that row."""
        self.duplicates.clear()
        try:
            value = self.decoder.decode(text)
        except (ValueError, RecursionError) as error:
            return RawRow(row, line, None, fault=tr("invalid JSON: {error}", error=str(error)), text=text)
        return self.raw(row, line, value, text)


class ArrayReader(_Rows):
    """A stream of `[row, …]`, or of an object whose `data` is such an array; keeps only a few rows in memory.

    Raises: DataError naming line and column.
    """

    def __init__(self, stream: TextIO, where: str) -> None:
        super().__init__()
        self.stream, self.where = stream, where
        self.buffer, self.position, self.ended = "", 0, False
        self.begin = 0  # of the latest value in the buffer
        self.line, self.column, self.counted = 1, 1, 0  # of buffer[counted]

    def rows(self) -> Iterator[RawRow]:
        """Each element with its number from 1 and the line on which it begins."""
        first = self._next()
        if first == "[":
            yield from self._array()
        elif first == "{":
            yield from self._data()
        else:
            self._value()  # invalid JSON is reported as such
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
                    self._fail("duplicate key 'data'", self.position)
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
            yield self.raw(number, line, value, self.buffer[self.begin : self.position])
            if self._expect(",", "]") == "]":
                return

    def _no_list(self) -> NoReturn:
        raise DataError(
            "The file does not contain a list of rows.", self.where, 'Write [{…}, {…}], or {"data": [{…}]}.'
        )

    def _expect(self, *characters: str) -> str:
        """Consume the next character, which must be one of these."""
        found = self._next()
        if found not in characters or not found:
            self._fail(f"Expecting {' or '.join(map(repr, characters))}", self.position)
        self.position += 1
        return found

    def _next(self) -> str:
        """The next character that is not white space, or "" at the end; `position` points at it."""
        while True:
            self.position = BLANK.match(self.buffer, self.position).end()  # type: ignore[union-attr]
            if self.position < len(self.buffer):
                return self.buffer[self.position]
            if self.ended:
                return ""
            self._more()

    def _value(self) -> Any:
        """The JSON value that begins here; while it may be cut, the buffer is doubled."""
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
                raise _json_error(error, tr("{file}, line {line}", file=self.where, line=self._line())) from None
            else:
                if end + CUT_NUMBER < len(self.buffer) or self.ended:
                    self.begin, self.position = self.position, end
                    return value
            self._more()

    def _more(self) -> None:
        self._count(self.position)
        rest = self.buffer[self.position :]
        room = max_row_characters() - len(rest)
        if room <= 0:
            raise row_too_long(tr("{file}, line {line}", file=self.where, line=self.line))
        new = self.stream.read(min(max(CHUNK, len(rest)), room))
        self.ended = not new
        self.buffer, self.position, self.counted = rest + new, 0, 0

    def _count(self, position: int) -> None:
        """Advance `line` and `column` to a position."""
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
        place = _place(self.where, self.line, self.column)
        raise DataError("Invalid JSON: {error}.", place, _fix(self.buffer, position), error=message) from None
