"""JSON mode, JSON schemas and forced tool calls, asked with OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from sartor.inference.engine import Engine
from sartor.inference.grammars import Guide
from sartor.server.answer_grammar import grammar_of
from sartor.server.app import Server
from sartor.server.schemas import ChatRequest
from sartor.server.tool_calls import read_calls
from support.serving import Served

HELLO: list[Any] = [{"role": "user", "content": "Who is Mr Darcy?"}]
WEATHER = {
    "type": "object",
    "properties": {"days": {"type": "integer", "minimum": 1, "maximum": 9}, "unit": {"enum": ["C", "F"]}},
    "required": ["days", "unit"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {
        "type": "function",
        "function": {"name": "stop.now", "parameters": {"type": "object", "additionalProperties": False}},
    },
]
ANY: dict[str, Any] = {"model": "tiny", "messages": HELLO, "temperature": 1.2, "max_tokens": 150}


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="any", max_retries=0, timeout=None) as client:
        yield client


class Person(BaseModel):
    alive: bool
    sisters: int
    house: str | None


def test_a_schema_is_followed_whatever_is_sampled(client: openai.OpenAI, trials: int) -> None:
    schema = {"name": "weather", "schema": WEATHER, "strict": True}
    for seed in range(trials):
        choice = client.chat.completions.create(
            **ANY, seed=seed, response_format={"type": "json_schema", "json_schema": schema}
        ).choices[0]
        assert choice.finish_reason == "stop"
        value = json.loads(choice.message.content or "")
        assert list(value) == ["days", "unit"]
        assert value["days"] in range(1, 10)


def test_json_mode_gives_an_object_or_says_that_it_was_cut_off(client: openai.OpenAI, trials: int) -> None:
    for seed in range(trials):
        choice = client.chat.completions.create(**ANY, seed=seed, response_format={"type": "json_object"}).choices[0]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content or ""), dict)
        assert choice.finish_reason in ("stop", "length")
        assert (choice.message.content or "").startswith("{")


def test_the_clients_own_parser_gets_its_class(client: openai.OpenAI) -> None:
    for seed in range(20):
        try:
            found = client.chat.completions.parse(**ANY, seed=seed, response_format=Person)
        except openai.LengthFinishReasonError:
            continue
        person = found.choices[0].message.parsed
        assert isinstance(person, Person)
        return
    pytest.fail("every answer was cut off")


def test_a_stream_of_json_says_the_same(client: openai.OpenAI) -> None:
    asked = {
        **ANY,
        "seed": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}},
    }
    whole = client.chat.completions.create(**asked).choices[0].message.content
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_a_required_call_is_made_with_arguments_of_its_schema(
    client: openai.OpenAI, tooled: Engine, stream: bool
) -> None:
    asked = {**ANY, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    names = set()
    for seed in range(6):
        if stream:
            with client.chat.completions.stream(**asked, seed=seed) as events:
                choice: Any = events.get_final_completion().choices[0]
        else:
            choice = client.chat.completions.create(**asked, seed=seed).choices[0]
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        names.add(call.function.name)
        check(call.function)
    assert names == {"weather", "stop.now"}


def check(function: Any) -> None:
    arguments = json.loads(function.arguments)
    if function.name == "weather":
        assert arguments["days"] in range(1, 10)
        assert arguments["unit"] in "CF"
    else:
        assert arguments == {}


def test_a_named_function_is_the_one_that_is_called(client: openai.OpenAI, tooled: Engine) -> None:
    named: Any = {"type": "function", "function": {"name": "stop.now"}}
    choice = client.chat.completions.create(**ANY, tools=TOOLS, tool_choice=named, seed=1).choices[0]
    assert choice.finish_reason == "stop"
    calls: Any = choice.message.tool_calls
    assert [call.function.name for call in calls] == ["stop.now"]
    assert choice.message.content is None


def test_a_call_that_is_cut_off_says_so(client: openai.OpenAI, tooled: Engine) -> None:
    asked = {**ANY, "max_tokens": 9, "tools": TOOLS, "tool_choice": "required"}
    assert client.chat.completions.create(**asked).choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": TOOLS}, "tool_choice", "'x'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}}}},
            "response_format",
            "not",
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}}, None, "name"),
        ({"response_format": {"type": "xml"}}, None, "response_format"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    client: openai.OpenAI, tooled: Engine, fields: dict[str, Any], param: str | None, says: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ANY, **fields)
    error: Any = caught.value.body
    assert says in error["message"]
    assert param is None or error["param"] == param


SYNTAXES = {
    "hermes": ("<tool_call>\n{}\n</tool_call>", "arguments"),
    "mistral": ("[TOOL_CALLS] [{}]", "arguments"),
    "llama": ('{} "parameters": ', "parameters"),
    "other": ("{}", "arguments"),
}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_each_templates_syntax_is_followed_and_read_again(served: Served, engine: Engine, syntax: str) -> None:
    """The grammar takes the call as the template writes it, and nothing else; the parser reads it."""
    frame, field = SYNTAXES[syntax]

    class Likeness:
        """An engine whose template writes calls in this way."""

        tokenizer = engine.tokenizer
        template = type("Template", (), {"source": frame})

    server: Server = served.inside
    asked = ChatRequest.model_validate({**ANY, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False})
    grammar = grammar_of(asked, Likeness(), server.grammars)  # type: ignore[arg-type]
    assert grammar is not None
    call = f'{{"name": "weather", "{field}": {{"days": 3, "unit": "F"}}}}'
    text = call if syntax == "llama" else frame.replace("{}", call)
    guide = grammar.start()
    for token in engine.tokenizer.encode(text):
        assert guide.allowed(300)[token], text
        guide.take(token)
    assert guide.done
    found = read_calls(text, frozenset(("weather",)))
    assert found == ("", [("weather", '{"days": 3, "unit": "F"}')])
    assert not grammar.start().allowed(300)[engine.tokenizer.encode("I")[0]]


@pytest.mark.parametrize("stream", [False, True])
def test_a_grammar_that_leads_nowhere_is_the_requests_fault(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(Guide, "failed", property(lambda self: "too complex"))
    asked: dict[str, Any] = {**ANY, "response_format": {"type": "json_object"}, "stream": stream}
    with pytest.raises(openai.APIError, match="The grammar cannot be followed: too complex") as error:
        list(client.chat.completions.create(**asked))
    assert error.value.type == "invalid_request_error"
    assert isinstance(error.value, openai.BadRequestError) != stream
