"""/v1/completions with OpenAI's own client: texts, ids, several prompts, streams, echo, log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from sartor.base.settings import GenerationSettings
from sartor.base.types import TokenSequence
from sartor.inference.engine import Engine
from support.serving import Served

PROMPT = "It is a truth universally"


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="any", max_retries=0, timeout=None) as client:
        yield client


def alone(engine: Engine, ids: list[int], tokens: int) -> str:
    import numpy as np

    row = TokenSequence(np.array(ids), ())
    (answer,) = engine.generate([row], GenerationSettings(max_new_tokens=tokens))
    return answer.text


def test_a_prompt_is_continued_as_it_stands(client: openai.OpenAI, engine: Engine) -> None:
    ids = engine.tokenizer(PROMPT)["input_ids"]
    found = client.completions.create(model="tiny", prompt=PROMPT)
    assert found.object == "text_completion"
    assert found.choices[0].text == alone(engine, ids, 16)
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(ids), 16)
    assert client.completions.create(model="tiny", prompt=ids).choices[0].text == found.choices[0].text
    base = client.completions.create(model="tiny:base", prompt=PROMPT)
    assert base.system_fingerprint != found.system_fingerprint


def test_a_rendered_prompt_keeps_its_control_tokens(client: openai.OpenAI, engine: Engine) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    text = engine.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    chat: Any = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12)  # type: ignore[arg-type]
    found = client.completions.create(model="tiny", prompt=text, max_tokens=12)
    assert found.choices[0].text == chat.choices[0].message.content
    assert found.usage.prompt_tokens == chat.usage.prompt_tokens  # type: ignore[union-attr]


def test_several_prompts_and_choices_are_numbered(client: openai.OpenAI, engine: Engine) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": [PROMPT, "Darcy"], "n": 2, "temperature": 1.0, "seed": 4}
    found = client.completions.create(**asked, max_tokens=10)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert found.usage is not None
    assert found.usage.prompt_tokens == sum(len(engine.tokenizer(text)["input_ids"]) for text in (PROMPT, "Darcy"))
    single = client.completions.create(**{**asked, "prompt": PROMPT}, max_tokens=10)
    assert [choice.text for choice in single.choices] == [choice.text for choice in found.choices[:2]]
    joined = [""] * 4
    finished = []
    for chunk in client.completions.create(**asked, max_tokens=10, stream=True):
        joined[chunk.choices[0].index] += chunk.choices[0].text
        finished += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
    assert joined == [choice.text for choice in found.choices]
    assert len(finished) == 4


def test_echo_and_usage_and_stops(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=20).choices[0].text
    echoed = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=20, echo=True)
    assert echoed.choices[0].text == PROMPT + whole
    chunks = list(
        client.completions.create(
            model="tiny", prompt=PROMPT, max_tokens=20, echo=True, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == PROMPT + whole
    assert chunks[-1].usage == echoed.usage
    stop = whole[5]
    cut = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=20, stop=[stop])
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_logprobs_have_the_older_form(client: openai.OpenAI) -> None:
    found = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=5, logprobs=2).choices[0].logprobs
    assert found is not None
    assert len(found.tokens or ()) == len(found.token_logprobs or ()) == len(found.text_offset or ()) == 5
    for value, top in zip(found.token_logprobs or (), found.top_logprobs or (), strict=True):
        assert 1 <= len(top) <= 2
        assert value == pytest.approx(max(top.values()), abs=1e-4), "greedy decoding chooses the likeliest"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": ""}, "no tokens"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [5, 10**9]}, "not in the vocabulary"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": "x " * 4000}, "maximum"),
        ({"echo": True, "logprobs": 1}, "echo with logprobs"),
        ({"suffix": "the end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 100}, "at most"),
        ({"prompt": ["a"] * 100, "n": 2}, "at most"),
    ],
)
def test_what_cannot_be_done_is_said(client: openai.OpenAI, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        client.completions.create(**{"model": "tiny", "prompt": PROMPT, **fields})
