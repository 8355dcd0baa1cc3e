"""How a template wants tool calls: which form of arguments, which ids; and gives calls and results what they lack.

Templates differ in ways that they do not declare. Some read arguments as an object, some as JSON text; Mistral's reject
ids that are not nine characters long; Kimi's write no name but the one in the id. What a template wants is found by
rendering one call with each form, until its name and arguments are written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal, TypeAlias

from sartor.base.types import Message, Tool, ToolCall
from sartor.prompt.messages import MessageForm

IdStyle = Literal["given", "nine", "function"]
"""Ids as the data have them; nine letters and digits (Mistral); `functions.NAME:NUMBER` (Kimi)."""
TryRender: TypeAlias = Callable[[Sequence[Message], Sequence[Tool], MessageForm], str | None]
"""Renders messages in a form; None where the template rejects them."""

NINE = 9
LONG_ID = "call_0123456789abcdefghijklmn"
NAME, KEY, VALUE, RESULT = "sartorlooks", "sartorkey", "sartorvalue", "sartorresult"
ARGUMENTS: Mapping[str, Any] = {KEY: VALUE}
SAMPLE_TOOL: Tool = {
    "type": "function",
    "function": {
        "name": "sartortool",
        "description": "Looks.",
        "parameters": {"type": "object", "properties": {KEY: {"type": "string", "description": "What."}}},
    },
}
QUESTION = Message("user", "Is it true?")


@dataclass(frozen=True, slots=True)
class CallStyle:
    """What a template wants; the default for one that renders no calls."""

    form: MessageForm = field(default_factory=MessageForm)
    ids: IdStyle = "given"
    long_ids: bool = True
    """Whether ids of more than nine characters are accepted where `ids` is "nine"."""

    def complete(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with the ids that the template wants, and each result with the id and name of its call.

        Results follow their calls in order unless their ids say otherwise. Nothing is random: the n-th call of a
        conversation always gets the same id.
        """
        done: list[Message] = []
        waiting: list[tuple[str | None, ToolCall]] = []
        count = 0
        for message in messages:
            if message.tool_calls:
                calls = [replace(call, id=self._id(call, count + n)) for n, call in enumerate(message.tool_calls)]
                waiting = [(before.id, call) for before, call in zip(message.tool_calls, calls)]
                count += len(calls)
                message = replace(message, tool_calls=tuple(calls))
            elif message.role == "tool":
                given = message.tool_call_id
                ids = [id for id, _ in waiting]
                place = ids.index(given) if given in ids else ids.index(None) if None in ids else 0
                if waiting and (given is None or ids[place] in (given, None)):
                    call = waiting.pop(place)[1]
                    message = replace(message, tool_call_id=call.id or given, name=message.name or call.name)
                elif given and self.ids == "nine" and not self._accepts(given):
                    message = replace(message, tool_call_id=_nine(given))
            done.append(message)
        return done

    def _id(self, call: ToolCall, number: int) -> str | None:
        if self.ids == "given":
            return call.id
        if self.ids == "function":
            kept = call.id and re.fullmatch(rf"functions\.{re.escape(call.name)}:\d+", call.id)
            return call.id if kept else f"functions.{call.name}:{number}"
        if call.id:
            return call.id if self._accepts(call.id) else _nine(call.id)
        return f"call{number:05d}"

    def _accepts(self, id: str) -> bool:
        return len(id) == NINE or (self.long_ids and len(id) > NINE)


def find_style(try_render: TryRender, base: MessageForm) -> CallStyle:
    """The style in which a template writes the name and the arguments of a call, by rendering samples of it."""
    styles: tuple[IdStyle, ...] = ("nine", "function")
    for as_none, as_text, ids in product((False, True), (False, True), styles):
        form = replace(base, arguments_as_text=as_text, empty_as_none=as_none)
        call = _sample(f"functions.{NAME}:0" if ids == "function" else "call00000")[:2]
        text = try_render(call, (SAMPLE_TOOL,), form)
        if text is None or any(part not in text for part in (NAME, KEY, VALUE)) or repr(dict(ARGUMENTS)) in text:
            continue
        if ids == "function" or _reads_ids(try_render, form):
            long = try_render(_sample(LONG_ID), (SAMPLE_TOOL,), form) is not None
            return CallStyle(form, ids, long)
        return CallStyle(form)
    return CallStyle(base)


def mark_names(messages: Sequence[Message], mark: str) -> tuple[list[Message], list[str]]:
    """The messages with another name for every call, and these names: what a template renders contains them all."""
    marks: list[str] = []

    def marked(call: ToolCall) -> ToolCall:
        marks.append(f"{mark}{len(marks)}x")
        return replace(call, name=marks[-1])

    return [replace(m, tool_calls=tuple(map(marked, m.tool_calls))) for m in messages], marks


def _reads_ids(try_render: TryRender, form: MessageForm) -> bool:
    """Whether ids change what is rendered, of one call or of two at once."""
    for count in (1, 2):
        with_ids = try_render(_sample("call00000", count), (SAMPLE_TOOL,), form)
        if with_ids is not None and with_ids != try_render(_sample(None, count), (SAMPLE_TOOL,), form):
            return True
    return False


def _sample(id: str | None, count: int = 1) -> list[Message]:
    """A question, calls, their results in the other order, and an answer."""
    calls = tuple(ToolCall(f"{NAME}{n or ''}", ARGUMENTS, id and id[:-1] + str(n)) for n in range(count))
    results = (
        Message("tool", f"{RESULT}{n}", tool_call_id=c.id, name=c.name) for n, c in reversed([*enumerate(calls)])
    )
    return [QUESTION, Message("assistant", "", calls), *results, Message("assistant", "It is.")]


def _nine(id: str) -> str:
    """Nine letters and digits that stand for an id of another form."""
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:NINE]
