"""Rows in OpenAI's form: `messages` of role and content, with tool calls, tool results and reasoning."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from sartor.base.types import Example, Message, Origin, Role
from sartor.data.dataset_spec import COLUMNS, DatasetSpec
from sartor.data.formats import Format, sharegpt
from sartor.data.validate import Notes, RowRejected, is_missing, text_of

ROLES: Mapping[str, Role] = {"developer": "system", "function": "tool"}
"""Roles of OpenAI's API in addition to those of the entry's tags."""


class OpenAIFormat(Format):
    """`{"messages": [{"role": …, "content": …}, …]}`."""

    name = "openai"
    columns: ClassVar[Mapping[str, str | None]] = {**COLUMNS, "messages": "messages"}
    tags: ClassVar[Mapping[str, str]] = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "observation_tag": "tool",
        "function_tag": "function_call",
        "system_tag": "system",
    }

    def parse(self, row: Mapping[str, Any], spec: DatasetSpec, origin: Origin, stage: str, notes: Notes) -> Example:
        return sharegpt.example_of(row, spec, origin, stage, notes, _message)

    def recognize(self, columns: Collection[str]) -> Mapping[str, Any] | None:
        if "messages" not in columns or "conversations" in columns:
            return None
        return sharegpt.recognized(self.name, "messages", columns)


def _message(turn: Any, number: int, spec: DatasetSpec, column: str, notes: Notes) -> Message:
    tags = spec.tags
    if not isinstance(turn, dict) or tags["role_tag"] not in turn:
        raise RowRejected(
            "turn-malformed", column, turn=number, role_tag=tags["role_tag"], content_tag=tags["content_tag"]
        )
    word = str(turn[tags["role_tag"]])
    if word == tags["function_tag"]:
        return sharegpt.message_of(turn, number, spec, column, notes)
    role = sharegpt.role_of(word, tags) or ROLES.get(word)
    if role is None:
        raise RowRejected("role-unknown", column, turn=number, role=word[:40])
    content = turn.get(tags["content_tag"])
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else None)
    parsed = sharegpt.calls_of(calls, number, column) if calls and role == "assistant" else ()
    may_be_empty = role == "system" or parsed or (role == "tool" and isinstance(content, (str, list)))
    text = _text(content, column, notes)
    if is_missing(text) and not may_be_empty:
        raise RowRejected("turn-empty", column, turn=number, role=word)
    reasoning = turn.get("reasoning_content") or turn.get("reasoning")
    if is_missing(reasoning) or role != "assistant":
        reasoning = None
    return Message(
        role,
        text,
        parsed,
        text_of(reasoning, column, notes) if reasoning else None,
        _is_trained(turn, number, column),
        *sharegpt.call_answered(turn, column, notes),
    )


def _text(content: Any, column: str, notes: Notes) -> str:
    """A text, or the texts of a list of parts joined. Raises: RowRejected for a part that is not text."""
    if not isinstance(content, list):
        return "" if content is None or content != content else text_of(content, column, notes)
    texts = []
    for part in content:
        if isinstance(part, dict) and part.get("type", "text") in ("text", "input_text", "output_text"):
            texts.append(_text(part.get("text"), column, notes))
        elif isinstance(part, str):
            texts.append(text_of(part, column, notes))
        else:
            kind = str(part.get("type"))[:40] if isinstance(part, dict) else type(part).__name__
            raise RowRejected("cell-not-text", column, field=column, kind=kind)
    return "".join(texts)


def _is_trained(turn: Mapping[str, Any], number: int, column: str) -> bool:
    """Whether a turn is trained on: not with `loss: false` or OpenAI's `weight: 0`."""
    weight = turn.get("weight")
    if weight is None:
        return sharegpt.is_trained(turn, number, column)
    if weight not in (0, 1):
        raise RowRejected("loss-invalid", column, turn=number)
    return bool(weight)


PLUGIN = OpenAIFormat()
EXAMPLES: tuple[Any, ...] = (
    (
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Bath?"}],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Bath"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "rain"},
                {"role": "assistant", "content": "Rain.", "reasoning_content": "The tool said so."},
            ]
        },
        {},
        ("system: Be brief.", "user: Weather in Bath?", "assistant: ", "tool: rain", "assistant: Rain."),
    ),
    (
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "system": " "},
        {"columns": {"system": "system"}},
        ("user: Hi", "assistant: Hello"),
    ),
)
"""(row, keys of the registry entry, the turns it becomes)."""
