"""OpenAI's own client against the server: answers, streams, choices, stops, log-probabilities, tools, models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest

from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Answer, Engine
from sartor.server.app import ServerSettings
from sartor.server.responses import _split
from sartor.server.tool_calls import read_calls
from support.serving import Served

HELLO: list[Any] = [{"role": "user", "content": "Who is Mr Darcy?"}]
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
]


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="any", max_retries=0, timeout=None) as client:
        yield client


def test_an_answer_is_the_engines(client: openai.OpenAI, engine: Engine) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20)
    alone = engine.chat(HELLO, GenerationSettings(max_new_tokens=20))
    assert answer.choices[0].message.content == alone.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.system_fingerprint == f"fp_{engine.fingerprint('tuned')}"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (alone.prompt_tokens, 20)


def test_base_and_tuned_are_two_models_with_their_fingerprints(client: openai.OpenAI, engine: Engine) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "tiny:base"]
    assert client.models.retrieve("tiny").id == "tiny"
    base = client.chat.completions.create(model="tiny:base", messages=HELLO)
    assert base.system_fingerprint == f"fp_{engine.fingerprint('base')}"
    with pytest.raises(openai.NotFoundError, match="tiny:base"):
        client.chat.completions.create(model="gpt-9", messages=HELLO)


def test_a_stream_says_the_same_in_pieces(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "temperature": 1.0, "seed": 5, "max_tokens": 60}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 5
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage


def test_choices_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "temperature": 1.5, "n": 3, "seed": -7}
    first, again = (client.chat.completions.create(**asked) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert len(set(texts)) == 3
    assert [choice.message.content for choice in again.choices] == texts
    other = client.chat.completions.create(**{**asked, "seed": 8})
    assert other.choices[0].message.content != texts[0]
    chunks = client.chat.completions.create(**asked, stream=True)
    joined = ["", "", ""]
    for chunk in chunks:
        joined[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert joined == texts


def test_a_stop_text_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "temperature": 1.0, "seed": 1, "max_tokens": 60}
    whole = client.chat.completions.create(**asked).choices[0].message.content or ""
    stop = next(whole[i : i + 2] for i in range(3, len(whole)) if whole[i : i + 2].isascii())
    cut = client.chat.completions.create(**asked, stop=[stop, "never"])
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    streamed = client.chat.completions.create(**asked, stop=stop, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == whole[: whole.index(stop)]


def test_log_probabilities_come_with_each_token(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "logprobs": True, "top_logprobs": 3, "max_tokens": 5}
    answer = client.chat.completions.create(**asked)
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.content or []
    assert len(tokens) == 5
    for token in tokens:
        assert token.top_logprobs[0].token == token.token  # greedy: the likeliest
        assert token.logprob == token.top_logprobs[0].logprob <= 0.0
        assert len(token.top_logprobs) == 3
    chunks = client.chat.completions.create(**asked, stream=True)
    streamed = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content or []]
    assert streamed == tokens


def test_tools_need_a_template_that_writes_them(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not render tools"):
        client.chat.completions.create(model="tiny", messages=HELLO, tools=TOOLS)


def test_a_tool_call_is_read_from_the_answer(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.load(str(tiny_model_dir), template="qwen3", dtype="float32", device="cpu")
    served = Served(engine, ServerSettings("tiny", GenerationSettings(max_new_tokens=2)))
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="any", max_retries=0) as client:
        _call_a_tool(client, engine, monkeypatch)
    served.close()


def _call_a_tool(client: openai.OpenAI, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = engine.answer_of
    said = 'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "巴黎"}}\n</tool_call>'

    def calling(row: Any, settings: GenerationSettings) -> Answer:
        return dataclasses.replace(plain(row, settings), text=said, stop_reason="stop")

    monkeypatch.setattr(engine, "answer_of", calling)
    choice = client.chat.completions.create(model="tiny", messages=HELLO, tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    call: Any = (choice.message.tool_calls or [])[0]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "巴黎"}')
    chunks = list(client.chat.completions.create(model="tiny", messages=HELLO, tools=TOOLS, stream=True))
    calls = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].function is not None
    assert calls[0].function.arguments == '{"city": "巴黎"}'
    none = client.chat.completions.create(model="tiny", messages=HELLO, tools=TOOLS, tool_choice="none").choices[0]
    assert none.message.tool_calls is None


@pytest.mark.parametrize(
    ("text", "rest", "calls"),
    [
        ('<tool_call>{"name": "f", "arguments": {}}</tool_call>', "", [("f", "{}")]),
        ('[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]', "", [("f", '{"a": 1}')]),
        ('{"name": "f", "parameters": {"a": null}}', "", [("f", '{"a": null}')]),
        ('{"name": "g", "parameters": {}}', '{"name": "g", "parameters": {}}', []),
        ('<tool_call>{"name": "f", "arguments": "no"}</tool_call>', None, []),
        ('{"name": "f", "parameters": ' + "[" * 100_000, None, []),
        ("no call", "no call", []),
    ],
)
def test_only_whole_calls_of_known_tools_are_calls(text: str, rest: str | None, calls: list[Any]) -> None:
    assert read_calls(text, frozenset({"f"})) == (text if rest is None else rest, calls)


def test_reasoning_is_told_apart_while_it_grows() -> None:
    whole = "<think>\nhm </th ok\n</think>\n\nDarcy."
    told = [_split(whole[:n]) for n in range(len(whole) + 1)]
    for (r1, c1), (r2, c2) in pairwise(told):
        assert r2.startswith(r1)
        assert c2.startswith(c1)
    assert told[-1] == ("hm </th ok", "Darcy.")
    assert _split("<b>bold") == ("", "<b>bold")
