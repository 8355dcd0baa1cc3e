"""Calls that a template renders are read back from the rendering: the trainer and the server know the same families."""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import PromptError
from sartor.base.settings import PromptSettings
from sartor.base.types import Demonstration, Message, Origin, TokenSequence, ToolCall
from sartor.prompt.answer_reader import AnswerReader
from sartor.prompt.encode import Encoder
from sartor.prompt.messages import split_reasoning
from sartor.prompt.template import Template
from support.public_templates import FILES
from support.vendor_templates import GLM_ENDS, VENDORS, vendor_tokenizer

WITHOUT_CALLS = {
    *("cohere", "cohere2", "gemma", "gemma3", "idefics3", "lfm2", "llama3", "llava_next"),
    *("phi3", "phi3_5", "qwen2_5_vl", "smolvlm"),
}
"""Templates of TRL's that write no calls."""
ALL = {
    **VENDORS,
    **{n: file.read_text(encoding="utf-8") for n, file in FILES.items() if n not in WITHOUT_CALLS},
}
PROPERTIES = {
    "title": {"type": "string", "description": "Which."},
    "year": {"type": "integer", "description": "When."},
    "exact": {"type": "boolean", "description": "Whether."},
    "names": {"type": "array", "description": "Who.", "items": {"type": "string"}},
    "more": {"type": "object", "description": "What else.", "properties": {}},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Finds.",
            "parameters": {"type": "object", "properties": PROPERTIES},
        },
    }
    for name in ("find", "find_all", "get.time-2")
]
ARGUMENTS: tuple[dict[str, Any], ...] = (
    {"title": "Emma", "year": 1815},
    {},
    {"title": "1815"},
    {"title": 'A "b" <c>\n{d}, (e): [f]', "exact": True, "names": ["x, y", "艾玛"], "more": {"a": {"b": 1}, "c": "d"}},
)
QUESTION = Message("user", "Who wrote it?")


def reader_of(source: str) -> tuple[Encoder, AnswerReader]:
    with tempfile.TemporaryDirectory() as folder:
        ends = [end for end in GLM_ENDS if end in source]
        tokenizer = vendor_tokenizer(source, [*ends, "<|user|>", "<|observation|>"], Path(folder))
        encoder = Encoder(tokenizer, Template.from_tokenizer(tokenizer), PromptSettings(cutoff_len=1 << 20))
    return encoder, AnswerReader(encoder.template)


def written(encoder: Encoder, turn: Message) -> str:
    """What the model generates for a turn, without the token that ends it."""
    tools = () if "tools" not in encoder.template.source or encoder.template.source == ALL.get("deepseekv3") else TOOLS
    sequence = encoder.encode(Demonstration((QUESTION, turn), Origin("a", "a", 1), tuple(tools)))
    assert isinstance(sequence, TokenSequence), sequence.reason
    ids = sequence.ids[slice(*sequence.label_spans[-1])].tolist()
    while ids and ids[-1] in encoder.stop_ids:
        ids.pop()
    return str(encoder.tokenizer.decode(ids))


@pytest.mark.parametrize("name", ALL)
def test_what_the_template_writes_is_read_back(name: str) -> None:
    encoder, reader = reader_of(ALL[name])
    assert reader.reads_calls
    for tool in ("find", "find_all", "get.time-2"):
        for arguments in ARGUMENTS:
            turn = Message("assistant", "", (ToolCall(tool, arguments),))
            rest, calls = reader.read_calls(written(encoder, turn), TOOLS)
            assert [(call.name, dict(call.arguments)) for call in calls] == [(tool, arguments)]
            assert split_reasoning(Message("assistant", rest)).text.strip() in ("", "</think>")


@pytest.mark.parametrize("name", ALL)
def test_several_calls_and_a_text_beside_them_are_read_back(name: str) -> None:
    encoder, reader = reader_of(ALL[name])
    calls = tuple(ToolCall("find", arguments) for arguments in ARGUMENTS)
    for text in ("", "I look it up."):
        turn = Message("assistant", text, calls)
        try:
            encoder.template.lay_out((QUESTION, turn), TOOLS)
        except PromptError:
            continue  # refused, by the template or because it would drop something
        rest, read = reader.read_calls(written(encoder, turn), TOOLS)
        assert [(call.name, dict(call.arguments)) for call in read] == [("find", each) for each in ARGUMENTS]
        assert text in rest


@pytest.mark.parametrize("name", ALL)
def test_only_whole_calls_of_known_tools_are_calls(name: str) -> None:
    encoder, reader = reader_of(ALL[name])
    text = written(encoder, Message("assistant", "", (ToolCall("find", {"title": "Emma"}),)))
    assert reader.read_calls(text, [TOOLS[1]])[1] == []
    assert reader.read_calls(text, [])[1] == []
    assert reader.read_calls("find Emma", TOOLS) == ("find Emma", [])
    for stop in range(len(text)):
        for call in reader.read_calls(text[:stop], TOOLS)[1]:
            assert (call.name, dict(call.arguments)) in (("find", {"title": "Emma"}), ("find", {}))


@pytest.mark.parametrize("name", ["qwen2_5", "llama3_1", "mistral", "kimi", "glm", "minimax", "nemotron_3_nano"])
def test_other_white_space_is_read_too(name: str) -> None:
    encoder, reader = reader_of(ALL[name])
    text = written(encoder, Message("assistant", "", (ToolCall("find", {"title": "Emma", "year": 1815}),)))
    for changed in (text.strip(), text.replace('": "', '":"').replace('", "', '","'), text.replace("\n", "\n\n")):
        (call,) = reader.read_calls(changed, TOOLS)[1]
        assert {key: str(value).strip() for key, value in call.arguments.items()} == {"title": "Emma", "year": "1815"}


@pytest.mark.parametrize("name", [name for name in ALL if name in FILES])
def test_what_is_read_is_what_the_response_templates_of_transformers_read(name: str) -> None:
    from transformers.utils.chat_parsing import parse_response
    from trl.chat_template_utils import add_response_schema

    encoder, reader = reader_of(ALL[name])
    try:
        add_response_schema(encoder.tokenizer)
    except ValueError:
        pytest.skip("TRL has no response template for this one")
    own = encoder.tokenizer.response_template
    prompt = encoder.template.render([QUESTION], TOOLS, generation=True)
    turn = Message("assistant", "", (ToolCall("find", {"title": "Emma", "year": 1815}),))
    text = written(encoder, turn)
    try:
        theirs = parse_response(text + encoder.template.ends[-1], own, prefix=prompt, tools=TOOLS)["tool_calls"]
    except (KeyError, ValueError):
        pytest.skip("their response template does not read what the template writes")
    ours = reader.read_calls(text, TOOLS)[1]
    assert [{"name": c.name, "arguments": dict(c.arguments)} for c in ours] == [c["function"] for c in theirs]
    with_own = AnswerReader(encoder.template, own)
    assert [c.name for c in with_own.read_calls(text, TOOLS)[1]] == ["find"]


def test_a_response_template_that_is_wrong_is_passed_over() -> None:
    encoder, _ = reader_of(ALL["qwen3"])
    text = written(encoder, Message("assistant", "", (ToolCall("find", {"title": "Emma"}),)))
    wrong: tuple[Any, ...] = (
        {"fields": 1},
        {"fields": {}},
        {"defaults": {"tool_calls": [{"function": 5}]}, "fields": {}},
    )
    for own in wrong:
        reader = AnswerReader(encoder.template, own)
        assert [call.name for call in reader.read_calls(text, TOOLS)[1]] == ["find"]


@pytest.mark.parametrize(
    "name", ["gptoss", "gemma4_v5", "qwen3", "qwen3_5_think", "nemotron_3_nano", "glm", "command", "kimi"]
)
def test_an_answer_is_shown_without_headers_and_grows(name: str) -> None:
    encoder, reader = reader_of(ALL[name])
    thought = split_reasoning(Message("assistant", "Jane Austen, I think.", reasoning="Who was it?"))
    for turn in (Message("assistant", "Jane Austen, I think."), thought):
        text = written(encoder, turn)
        shown = text if reader.has_headers else reader._special.sub("", text)
        whole = split_reasoning(Message("assistant", reader.text(shown, whole=True)))
        assert whole.text.strip() == "Jane Austen, I think."
        if turn.reasoning and encoder.template.renders_reasoning:
            assert (whole.reasoning or "").strip() == "Who was it?"
        control = encoder.codec.scan(shown)  # such a token comes whole
        stops = [n for n in range(len(shown) + 1) if not any(c.start < n < c.stop for c in control)]
        for before, after in itertools.pairwise(reader.text(shown[:n], whole=False) for n in stops):
            assert after.startswith(before.rstrip()), (before, after)


def test_damaged_calls_never_fail(trials: int) -> None:
    draw = random.Random(5)
    for name, source in ALL.items():
        encoder, reader = reader_of(source)
        text = written(encoder, Message("assistant", "", (ToolCall("find", ARGUMENTS[3]),)))
        for _ in range(trials):
            place, length = draw.randrange(len(text)), draw.randrange(4)
            damaged = (
                text[:place] + draw.choice(["", "{", "[" * 5000, '"', "\\", "</", "\x00", "é"]) + text[place + length :]
            )
            for call in reader.read_calls(damaged, TOOLS)[1]:
                json.dumps(dict(call.arguments))
                assert call.name in ("find", "find_all", "get.time-2"), name
