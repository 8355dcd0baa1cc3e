"""What a template writes around the names and arguments of tool calls, found by rendering samples of calls."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sartor.base.types import Message, Tool, ToolCall

ArgumentsForm = Literal["json", "text", "pairs", "python", "quoted"]
"""An object, an object as JSON text, a pair of tags for each, `key='value'`, or an object with its own quotes."""
RenderCalls: TypeAlias = Callable[[Sequence[Message]], str | None]
"""The text of the turn that a conversation ends with; None where the template rejects the conversation."""

NAME, KEYS, TEXTS, NUMBERS = "sartorlooks", ("sartorkey", "sartorother"), ("sartorvalue", "sartorthing"), (71341, 52763)
IDS = ("call00000", "call00001")
QUESTION, SAID = Message("user", "Is it true?"), "sartorsaid"


@dataclass(frozen=True, slots=True)
class PairTags:
    """What stands before a key, between key and value, and after the value; `typed` is what a text has instead."""

    before: str
    between: str
    after: str
    typed: str | None = None


@dataclass(frozen=True, slots=True)
class CallFrame:
    """One or more calls as a template writes them: `lead NAME mid ARGUMENTS (gap NAME mid ARGUMENTS)* tail`."""

    lead: str
    mid: str
    gap: str | None
    """None where a turn has one call."""
    tail: str
    form: ArgumentsForm
    pairs: PairTags | None = None
    quote: str = ""


def sample_tools() -> list[Tool]:
    """The tools that the samples call."""
    properties = {key: {"type": "string", "description": "What."} for key in KEYS}
    parameters = {"type": "object", "properties": properties}
    return [{"type": "function", "function": {"name": NAME, "description": "Looks.", "parameters": parameters}}]


def find_frame(render: RenderCalls, ends: Sequence[str]) -> CallFrame | None:
    """The frame of a template's calls; None where its calls are written in no form known here.

    `ends` are what may end a turn; they are no part of the frame.
    """
    texts = dict(zip(KEYS, TEXTS))
    turn = render([QUESTION, _calls([texts])])
    numbers = render([QUESTION, _calls([dict(zip(KEYS, NUMBERS))])])
    if turn is None or numbers is None or (start := turn.find(NAME)) < 0:
        return None
    stop = start + len(NAME)
    found = _object(turn, stop, texts)
    form, pairs, quote = found[2] if found else "pairs", None, ""
    if not found:
        located = _pairs(turn, stop, numbers)
        if located is None:
            return None
        found, form, pairs, quote = located
    first, last = found[:2]
    two = render([QUESTION, _calls([texts, texts])])
    gap = _gap(two, last - start, form, texts) if two else None
    lead = _lead(turn[:start], render)
    return CallFrame(lead, turn[stop:first], gap, _until(turn[last:], ends), form, pairs, quote)


def samples(render: RenderCalls, ends: Sequence[str]) -> Iterator[tuple[Message, str]]:
    """Messages with calls, and the turns that a template makes of them; `find_frame` uses none of these."""
    first: dict[str, Any] = {KEYS[0]: "One,\n two: <b>", KEYS[1]: "(3)"}
    chosen: list[list[dict[str, Any]]] = [[first], [{}], [first, {KEYS[1]: "{4}"}]]
    for arguments in chosen:
        message = _calls(arguments)
        if (turn := render([QUESTION, message])) is not None and turn.count(NAME) >= len(arguments):
            yield message, _until(turn, ends)


def _calls(arguments: Sequence[dict[str, Any]], text: str = "") -> Message:
    return Message("assistant", text, tuple(ToolCall(NAME, each, id) for each, id in zip(arguments, IDS)))


def _object(turn: str, start: int, wanted: dict[str, Any]) -> tuple[int, int, ArgumentsForm] | None:
    """Where the arguments stand as one JSON value: an object, or a text that is one."""
    decoder = json.JSONDecoder()
    for place in (found.start() for found in re.finditer(r'[{"]', turn[start:])):
        try:
            value, stop = decoder.raw_decode(turn, start + place)
            as_text = isinstance(value, str)
            if (json.loads(value) if as_text else value) == wanted:
                return start + place, stop, "text" if as_text else "json"
        except ValueError:
            continue
    return None


def _pairs(
    turn: str, start: int, numbers: str
) -> tuple[tuple[int, int, ArgumentsForm], ArgumentsForm, PairTags | None, str] | None:
    """Where the arguments stand as keys and values, and what is around each."""
    strings, others = _places(turn, start, TEXTS), _places(numbers, numbers.find(NAME) + len(NAME), NUMBERS)
    if strings is None or others is None:
        return None
    opening, between, joint, last = strings
    plain_between, plain_joint = others[1], others[2]
    quote = between.removeprefix(plain_between) if between.startswith(plain_between) else ""
    if quote.strip() and joint == quote + plain_joint:
        form: ArgumentsForm = "python" if quote in ("'", '"') and opening.lstrip().startswith("(") else "quoted"
        first = start + len(opening) - len(opening.lstrip()) + (0 if opening.lstrip()[:1] in ("(", "{") else -1)
        bracket = turn.find(")" if form == "python" else "}", last + len(quote))
        return None if first < start or bracket < 0 else ((first, bracket + 1, form), form, None, quote)
    before = _common_suffix(opening, joint)
    after = joint.removesuffix(before)
    closing = after.replace(KEYS[0], KEYS[1])  # some name the key again
    if not before.strip() or not turn.startswith(closing, last):
        return None
    tags = PairTags(before, plain_between, after, between if between != plain_between else None)
    return (start + len(opening) - len(before), last + len(closing), "pairs"), "pairs", tags, ""


def _places(turn: str, start: int, values: Sequence[Any]) -> tuple[str, str, str, int] | None:
    """What stands before the first key, between key and value, between two pairs; and where the last value ends."""
    places = [start]
    for part in (KEYS[0], str(values[0]), KEYS[1], str(values[1])):
        place = turn.find(part, places[-1])
        if place < 0:
            return None
        places += [place, place + len(part)]
    opening, between, joint, second = (turn[places[n] : places[n + 1]] for n in (0, 2, 4, 6))
    return (opening, between, joint, places[8]) if second == between else None


def _gap(two: str, length: int, form: ArgumentsForm, texts: dict[str, Any]) -> str | None:
    """What stands between two calls: between the arguments of the first, which end so far behind its name, and the
    name of the second."""
    start = two.find(NAME)
    stop = two.find(NAME, start + length)
    return two[start + length : stop] if 0 <= start < stop else None


def _lead(before: str, render: RenderCalls) -> str:
    """What stands before the first name in any case: also behind a text, where the template renders one there."""
    said = render([QUESTION, _calls([dict(zip(KEYS, TEXTS))], SAID)])
    if said and NAME in said and SAID in said[: said.find(NAME)]:
        before = _common_suffix(before, said[said.find(SAID) + len(SAID) : said.find(NAME)])
    return before.rpartition("</think>")[2]


def _until(text: str, ends: Sequence[str]) -> str:
    return text[: min((place for end in ends if end and (place := text.find(end)) >= 0), default=len(text))]


def _common_suffix(one: str, other: str) -> str:
    length = next((n for n, (a, b) in enumerate(zip(one[::-1], other[::-1])) if a != b), min(len(one), len(other)))
    return one[len(one) - length :]
