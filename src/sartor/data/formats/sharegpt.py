"""Rows that hold a conversation: a list of turns with a role and a text each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sartor.base.types import Demonstration, Document, Example, Feedback, Message, Origin, Preference, ToolCall
from sartor.data.dataset_info import DatasetSpec
from sartor.data.formats.alpaca import good_of
from sartor.data.validate import Notes, Unusable, is_missing, optional_text, parse_tools, required_text, text_of

SYNONYMS = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system",
            "tool": "tool", "observation": "tool", "developer": "system"}  # fmt: skip
"""Role words understood beside the entry's own tags, so that a half-written `tags` reads the usual words too."""


def parse(row: Mapping[str, Any], spec: DatasetSpec, origin: Origin, stage: str, notes: Notes) -> Example:
    """One row as an example. Raises: Unusable with the code of what is wrong."""
    columns = spec.columns
    if stage == "pt":
        column = columns["prompt"] or "instruction"
        return Document(required_text(row, column, "prompt-missing", notes), origin)
    column = columns["messages"] or "conversations"
    turns = row.get(column)
    if not isinstance(turns, list) or not turns:
        raise Unusable("messages-missing", column, field=column)
    messages = [_message(turn, number, spec, column, notes) for number, turn in enumerate(turns, 1)]
    system = optional_text(row, columns["system"], notes)
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    messages = [m for m in messages if m.role != "system" or m.text.strip()]
    tools = parse_tools(row.get(columns["tools"]), columns["tools"], notes) if columns["tools"] else ()
    if spec.ranking:
        chosen, rejected = (_turn(row, columns[name] or name, spec, notes) for name in ("chosen", "rejected"))
        if chosen == rejected:
            raise Unusable("same-answers", columns["rejected"])
        return Preference(tuple(messages), chosen, rejected, origin, tools)
    if not any(m.role == "assistant" and (m.text.strip() or m.tool_calls) for m in messages):
        raise Unusable("no-answer-turn", column, field=column)
    if columns["kto_tag"]:
        good = good_of(row.get(columns["kto_tag"]), columns["kto_tag"])
        return Feedback(tuple(messages), good, origin, tools)
    return Demonstration(tuple(messages), origin, tools)


def _turn(row: Mapping[str, Any], column: str, spec: DatasetSpec, notes: Notes) -> Message:
    """A chosen or rejected answer: a turn, or its bare text."""
    value = row.get(column)
    if is_missing(value) or value == {}:
        raise Unusable("answer-missing", column, field=column)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _message(value, 1, spec, column, notes) if isinstance(value, dict) else Message(
        "assistant", text_of(value, column, notes)
    )  # fmt: skip


def _message(turn: Any, number: int, spec: DatasetSpec, column: str, notes: Notes) -> Message:
    tags = spec.tags
    if not isinstance(turn, dict) or tags["role_tag"] not in turn:
        raise Unusable(
            "turn-malformed", column, turn=number, role_tag=tags["role_tag"], content_tag=tags["content_tag"]
        )
    word, content = str(turn[tags["role_tag"]]), turn.get(tags["content_tag"])
    learn = turn.get("loss", True)
    if not isinstance(learn, bool):
        raise Unusable("loss-invalid", column, turn=number)
    if word == tags["function_tag"]:
        return Message("assistant", "", _calls(content, number, column), learn=learn)
    role = _role(word, tags)
    if role is None:
        raise Unusable("role-unknown", column, turn=number, role=word[:40])
    if is_missing(content) and role != "system":
        raise Unusable("turn-empty", column, turn=number, role=word)
    text = "" if is_missing(content) else text_of(content, column, notes)
    return Message(role, text, learn=learn)  # type: ignore[arg-type]


def _role(word: str, tags: Mapping[str, str]) -> str | None:
    own = {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant", tags["system_tag"]: "system",
           tags["observation_tag"]: "tool"}  # fmt: skip
    return own.get(word) or SYNONYMS.get(word)


def _calls(content: Any, number: int, column: str) -> tuple[ToolCall, ...]:
    """`{"name": …, "arguments": …}` or a list of such, as JSON text or parsed; arguments parsed once."""
    try:
        value = json.loads(content) if isinstance(content, str) else content
        calls = value if isinstance(value, list) else [value]
        return tuple(ToolCall(call["name"], _arguments(call.get("arguments", {}))) for call in calls)
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable("call-invalid", column, turn=number, reason=str(error)[:80]) from None


def _arguments(value: Any) -> Mapping[str, Any]:
    parsed = json.loads(value) if isinstance(value, str) else value
    if not isinstance(parsed, dict):
        raise ValueError("arguments are no object")
    return parsed


EXAMPLES = (
    (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "tools": " "},
        {"columns": {"messages": "conversations", "tools": "tools"}},
        ("user: Hi", "assistant: Hello"),
    ),
)
"""(row, keys of the registry entry, the turns it becomes)"""
