"""OpenAI's form: tool calls parsed once, reasoning apart, roles of their API, nothing added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartor.base.types import Demonstration, Feedback, Message, Origin, Preference, RawRow, Skipped, ToolCall
from sartor.data.dataset_info import parse_entry
from sartor.data.read_rows import parse_row
from sartor.data.validate import Notes

ASK, SAY = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}


def read(row: Any, **keys: Any) -> Any:
    spec = parse_entry("x", {"file_name": "x.json", "formatting": "openai", **keys}, Path("dataset_info.json"))
    return parse_row(RawRow(1, None, row), spec, Origin("x", "x.json", 1), "sft", Notes())


def turn(**keys: Any) -> Message:
    example = read({"messages": [ASK, {"role": "assistant", **keys}, SAY]})
    assert isinstance(example, Demonstration), example
    return example.messages[1]


@pytest.mark.parametrize("arguments", ['{"n": 1}', {"n": 1}])
def test_arguments_are_an_object_however_they_were_written(arguments: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    assert turn(content=None, tool_calls=[call]).tool_calls == (ToolCall("f", {"n": 1}, "c1"),)
    assert turn(function_call={"name": "f", "arguments": arguments}).tool_calls == (ToolCall("f", {"n": 1}),)


def test_reasoning_is_kept_apart_and_weight_says_what_is_learned() -> None:
    assert turn(content="A", reasoning_content="because").reasoning == "because"
    assert turn(content="A", reasoning_content=None).reasoning is None
    assert (turn(content="A", weight=0).train, turn(content="A", loss=False).train) == (False, False)
    assert (turn(content="A", weight=1).train, turn(content="A", loss=None).train) == (True, True)


def test_a_tool_may_answer_nothing_and_a_developer_is_the_system() -> None:
    call = {"function": {"name": "f", "arguments": ""}}
    row = [
        {"role": "developer", "content": "S"},
        ASK,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": ""},
        SAY,
    ]
    assert [m.role for m in read({"messages": row}).messages] == ["system", "user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"role": "assistant", "content": None}, "turn-empty"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "cell-not-text"),
        ({"role": "assistant", "content": "A", "weight": 0.5}, "loss-invalid"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{oops"}}]}, "call-invalid"),
        ({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}, "call-invalid"),
        ({"role": "assistant", "tool_calls": ["f"]}, "call-invalid"),
        ({"role": "wizard", "content": "A"}, "role-unknown"),
        ({"content": "A"}, "turn-malformed"),
        ("A", "turn-malformed"),
    ],
)
def test_a_turn_that_cannot_be_used_skips_the_row_with_its_reason(message: Any, code: str) -> None:
    skipped = read({"messages": [ASK, message, SAY]})
    assert isinstance(skipped, Skipped)
    assert skipped.code == code
    assert str(skipped.reason)
    assert str(skipped.fix)


def test_preferences_and_feedback() -> None:
    pair = read({"messages": [ASK], "chosen": SAY, "rejected": {"role": "assistant", "content": "B"}}, ranking=True)
    assert isinstance(pair, Preference)
    assert (pair.chosen.text, pair.rejected.text) == ("A", "B")
    judged = read({"messages": [ASK, SAY], "good": "true"}, columns={"kto_tag": "good"})
    assert isinstance(judged, Feedback)
    assert judged.good


def test_tools_as_text_or_list() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for tools in ([tool], json.dumps([tool]), json.dumps(tool["function"])):
        assert read({"messages": [ASK, SAY], "tools": tools}, columns={"tools": "tools"}).tools == (tool,)
