"""Rows with a conversation: a list of turns, each with a role and a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from sartor.base.types import Demonstration, Document, Example, Feedback, Message, Origin, Preference, Role, ToolCall
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.formats import Answered, WritableFormat, optional_columns
from sartor.data.validate import (
    Notes,
    RowRejected,
    is_missing,
    optional_text,
    parse_kto_tag,
    parse_tools,
    required_text,
    text_of,
)

SYNONYMS: Mapping[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "developer": "system",
}
"""Role words accepted in addition to the entry's tags, so that incomplete `tags` still read the usual words."""

ReadTurn: TypeAlias = Callable[[Any, int, DatasetSpec, str, Notes], Message]
"""(turn, its number from 1, spec, column, notes) → message."""


class ShareGPTFormat(WritableFormat):
    """`{"conversations": [{"from": "human", "value": …}, …]}`."""

    name = "sharegpt"

    def parse(self, row: Mapping[str, Any], spec: DatasetSpec, origin: Origin, stage: str, notes: Notes) -> Example:
        return example_of(row, spec, origin, stage, notes, message_of)

    def recognize(self, columns: Collection[str]) -> Mapping[str, Any] | None:
        return recognized(self.name, "conversations", columns) if "conversations" in columns else None

    def to_row(self, example: Answered) -> dict[str, Any]:
        messages = example.prompt if isinstance(example, Preference) else example.messages
        texts = {message.role: message.text for message in messages}
        turns = [{"from": "human", "value": texts["user"]}]
        row: dict[str, Any] = {"conversations": turns}
        if isinstance(example, Preference):
            row |= {"chosen": {"from": "gpt", "value": example.chosen.text}}
            row |= {"rejected": {"from": "gpt", "value": example.rejected.text}}
        else:
            turns.append({"from": "gpt", "value": texts["assistant"]})
        row |= {"kto_tag": example.good} if isinstance(example, Feedback) else {}
        row |= {"system": texts["system"]} if "system" in texts else {}
        if example.tools:
            row["tools"] = json.dumps([dict(tool) for tool in example.tools], ensure_ascii=False)
        return row

    def written_columns(self, preference: bool = False) -> dict[str, str]:
        return {"messages": "conversations"} | ({"chosen": "chosen", "rejected": "rejected"} if preference else {})


def recognized(formatting: str, messages: str, columns: Collection[str]) -> dict[str, Any]:
    """The keys of a registry entry for conversations in the column `messages`, with ratings or pairs of answers."""
    optional = optional_columns(columns, "system", "tools")
    if {"chosen", "rejected"} <= set(columns):
        found = {"messages": messages, "chosen": "chosen", "rejected": "rejected", **optional}
        return {"formatting": formatting, "ranking": True, "columns": found}
    if tag := next((name for name in ("kto_tag", "label") if name in columns), None):
        optional["kto_tag"] = tag
    return {"formatting": formatting, "columns": {"messages": messages, **optional}}


def example_of(
    row: Mapping[str, Any], spec: DatasetSpec, origin: Origin, stage: str, notes: Notes, read_turn: ReadTurn
) -> Example:
    """A row with a list of turns as an example, each turn read by `read_turn`. Raises: RowRejected."""
    columns = spec.columns
    if stage == "pt":
        column = columns["prompt"] or "instruction"
        return Document(required_text(row, column, "prompt-missing", notes), origin)
    column = columns["messages"] or "conversations"
    turns = row.get(column)
    if not isinstance(turns, list) or not turns:
        raise RowRejected("messages-missing", column, field=column)
    messages = [read_turn(turn, number, spec, column, notes) for number, turn in enumerate(turns, 1)]
    system = optional_text(row, columns["system"], notes)
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    elif system and system != messages[0].text:
        notes.add("system-unused", field=columns["system"])
    messages = [m for m in messages if m.role != "system" or m.text.strip()]
    tools = parse_tools(row.get(columns["tools"]), columns["tools"], notes) if columns["tools"] else ()
    if spec.ranking:
        chosen, rejected = (
            _turn(row, columns[name] or name, spec, notes, read_turn) for name in ("chosen", "rejected")
        )
        if chosen == rejected:
            raise RowRejected("same-answers", columns["rejected"])
        return Preference(tuple(messages), chosen, rejected, origin, tools)
    if not any(m.role == "assistant" and (m.text.strip() or m.tool_calls) for m in messages):
        raise RowRejected("no-answer-turn", column, field=column)
    if columns["kto_tag"]:
        good = parse_kto_tag(row.get(columns["kto_tag"]), columns["kto_tag"])
        return Feedback(tuple(messages), good, origin, tools)
    return Demonstration(tuple(messages), origin, tools)


def _turn(row: Mapping[str, Any], column: str, spec: DatasetSpec, notes: Notes, read_turn: ReadTurn) -> Message:
    """A chosen or rejected answer: a turn, or its bare text."""
    value = row.get(column)
    if is_missing(value) or value == {}:
        raise RowRejected("answer-missing", column, field=column)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return (
        read_turn(value, 1, spec, column, notes)
        if isinstance(value, dict)
        else Message("assistant", text_of(value, column, notes))
    )


def message_of(turn: Any, number: int, spec: DatasetSpec, column: str, notes: Notes) -> Message:
    """One turn, `number` counting from 1, of the list in `column`. Raises: RowRejected."""
    tags = spec.tags
    if not isinstance(turn, dict) or tags["role_tag"] not in turn:
        raise RowRejected(
            "turn-malformed", column, turn=number, role_tag=tags["role_tag"], content_tag=tags["content_tag"]
        )
    word, content = str(turn[tags["role_tag"]]), turn.get(tags["content_tag"])
    trained = is_trained(turn, number, column)
    if word == tags["function_tag"]:
        return Message("assistant", "", calls_of(content, number, column), train=trained)
    role = role_of(word, tags)
    if role is None:
        raise RowRejected("role-unknown", column, turn=number, role=word[:40])
    if is_missing(content) and role != "system":
        raise RowRejected("turn-empty", column, turn=number, role=word)
    text = "" if is_missing(content) else text_of(content, column, notes)
    return Message(role, text, (), None, trained, *call_answered(turn, column, notes))


def call_answered(turn: Mapping[str, Any], column: str, notes: Notes) -> tuple[str | None, str | None]:
    """OpenAI's `tool_call_id` and `name` of a turn."""
    call_id, name = (turn.get(key) for key in ("tool_call_id", "name"))
    return (
        None if is_missing(call_id) else text_of(call_id, column, notes),
        None if is_missing(name) else text_of(name, column, notes),
    )


def is_trained(turn: Mapping[str, Any], number: int, column: str) -> bool:
    """Whether a turn is trained on: unless its `loss` is false (a Parquet file has null where it is not given)."""
    loss = turn.get("loss")
    if loss is not None and not isinstance(loss, bool):
        raise RowRejected("loss-invalid", column, turn=number)
    return loss is not False


def role_of(word: str, tags: Mapping[str, str]) -> Role | None:
    """The role that a word in a row means: by the entry's tags, else by the usual synonyms."""
    tagged: dict[str, Role] = {
        tags["user_tag"]: "user",
        tags["assistant_tag"]: "assistant",
        tags["system_tag"]: "system",
        tags["observation_tag"]: "tool",
    }
    return tagged.get(word) or SYNONYMS.get(word)


def calls_of(content: Any, number: int, column: str) -> tuple[ToolCall, ...]:
    """`{"name": …, "arguments": …}` or a list of such, as JSON text or parsed; arguments parsed once.

    OpenAI's `{"id": …, "function": {"name": …, "arguments": …}}` is accepted too. Raises: RowRejected.
    """
    try:
        value = json.loads(content) if isinstance(content, str) else content
        calls = value if isinstance(value, list) else [value]
        return tuple(_call(call) for call in calls)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RowRejected("call-invalid", column, turn=number, reason=str(error)[:80]) from None


def _call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function") or call
    if not isinstance(function["name"], str) or not function["name"]:
        raise ValueError("name is not a string")
    call_id = call.get("id")
    return ToolCall(function["name"], _arguments(function.get("arguments")), str(call_id) if call_id else None)


def _arguments(value: Any) -> Mapping[str, Any]:
    parsed = json.loads(value) if isinstance(value, str) and value.strip() else value or {}
    if not isinstance(parsed, dict):
        raise ValueError("arguments is not an object")
    return parsed


PLUGIN = ShareGPTFormat()
EXAMPLES = (
    (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "tools": " "},
        {"columns": {"messages": "conversations", "tools": "tools"}},
        ("user: Hi", "assistant: Hello"),
    ),
)
"""(row, keys of the registry entry, the turns it becomes)."""
