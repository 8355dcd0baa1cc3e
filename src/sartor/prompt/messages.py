"""Converts messages: from OpenAI-style dicts, reasoning in or out of the text, and to what chat templates read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from sartor.base.errors import PromptError, did_you_mean
from sartor.base.i18n import tr
from sartor.base.types import Message, Role, ToolCall


@dataclass(frozen=True, slots=True)
class MessageForm:
    """Which of the forms in use a template reads messages in."""

    arguments_as_text: bool = False
    """The arguments of a tool call as JSON text, as in OpenAI's API, rather than as an object."""
    empty_as_none: bool = False
    """No text beside tool calls as `None` rather than as an empty text."""
    content_parts: bool = False
    """A text as a list of parts: `[{"type": "text", "text": …}]`."""


THINKING = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


def message_of(value: Message | Mapping[str, Any]) -> Message:
    """A Message unchanged, or one from OpenAI's format, and its `loss`.

    Read: `role content name tool_calls tool_call_id reasoning_content`.

    Raises: PromptError for an unknown role, or content that is not text.
    """
    if isinstance(value, Message):
        return value
    role = {"developer": "system", "function": "tool"}.get(str(value.get("role")), str(value.get("role")))
    if role not in get_args(Role):
        raise PromptError("Unknown role {role!r}.", tr("messages"), did_you_mean(role, get_args(Role)), role=role)
    return Message(
        role=role,  # type: ignore[arg-type]
        text=_text_of(value.get("content")),
        tool_calls=tuple(_call_of(call) for call in value.get("tool_calls") or ()),
        reasoning=value.get("reasoning_content") or value.get("reasoning") or None,
        train=bool(value.get("loss", value.get("learn", True))),
        tool_call_id=_text_or_none(value.get("tool_call_id")),
        name=_text_or_none(value.get("name")),
    )


def split_reasoning(message: Message) -> Message:
    """Move a leading `<think>…</think>` of an assistant message into `reasoning`; other messages stay unchanged."""
    if message.role != "assistant" or message.reasoning is not None or "<think>" not in message.text[:64]:
        return message
    if not (found := THINKING.match(message.text)):
        return message
    return replace(message, reasoning=found[1].strip("\n"), text=message.text[found.end() :])


def join_reasoning(message: Message) -> Message:
    """The reverse: write the reasoning into the text, for templates that cannot render it."""
    if not message.reasoning:
        return replace(message, reasoning=None)
    return replace(message, reasoning=None, text=f"<think>\n{message.reasoning}\n</think>\n\n{message.text}")


def to_jinja(message: Message, form: MessageForm = MessageForm()) -> dict[str, Any]:
    """The dict that chat templates read; reasoning under both names in use."""
    content: Any = message.text
    if message.tool_calls and not content and form.empty_as_none:
        content = None
    elif form.content_parts:
        content = [{"type": "text", "text": content}]
    fields: dict[str, Any] = {"role": message.role, "content": content}
    if message.reasoning is not None:
        fields["reasoning_content"] = fields["thinking"] = message.reasoning
    if message.tool_calls:
        fields["tool_calls"] = [_call_to_jinja(call, form) for call in message.tool_calls]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        fields["name"] = message.name
    return fields


def calls_key(messages: Iterable[Message]) -> str:
    """All tool calls, ids and names of a conversation as one string: they are part of its structure (see `layout`)."""
    calls = [
        [[_call_to_jinja(call, MessageForm()) for call in message.tool_calls], message.tool_call_id, message.name]
        for message in messages
        if message.tool_calls or message.tool_call_id or message.name
    ]
    return json.dumps(calls, ensure_ascii=False) if calls else ""


def _call_to_jinja(call: ToolCall, form: MessageForm) -> dict[str, Any]:
    arguments: Any = dict(call.arguments)
    if form.arguments_as_text:
        arguments = json.dumps(arguments, ensure_ascii=False)
    fields = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    return {**fields, "id": call.id} if call.id else fields


def _call_of(call: ToolCall | Mapping[str, Any]) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    function = call.get("function", call)
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            raise PromptError(
                "The arguments of a tool call are not valid JSON: {reason}.", tr("messages"), reason=error
            ) from None
    return ToolCall(str(function.get("name")), arguments, call.get("id"))


def _text_or_none(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def _text_of(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "".join(str(part["text"]) for part in content)
    raise PromptError(
        "The content of a message is not text.", tr("messages"), "Images, audio and video are not supported yet."
    )
