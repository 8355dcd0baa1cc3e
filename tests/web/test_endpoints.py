"""An endpoint as a side of the chat: what is sent, what is refused before anything is sent, and its stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from sartor.base.errors import ConfigError
from sartor.base.settings import GenerationSettings
from sartor.base.types import Message
from sartor.web.endpoints import Remote, ask, key_of
from sartor.web.reply import Reply

SETTINGS = GenerationSettings(max_new_tokens=7, do_sample=False)
THERE = Remote("http://127.0.0.1:9/v1", "m", "", consent=True)


class Stream(httpx.AsyncByteStream):
    """Server-sent events, cut into odd pieces; `wait` holds the end back."""

    def __init__(self, events: list[Any], wait: asyncio.Event | None = None) -> None:
        lines = [event if isinstance(event, str) else json.dumps(event, ensure_ascii=False) for event in events]
        self.content = "".join(f"data: {line}\r\n\r\n" for line in lines).encode()
        self.wait = wait

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.content), 5):
            yield self.content[start : start + 5]
        if self.wait:
            await self.wait.wait()


def delta(**what: Any) -> dict[str, Any]:
    reason = what.pop("reason", None)
    return {"choices": [{"delta": what, "finish_reason": reason}]}


def asked(stream: Stream | httpx.Response, remote: Remote = THERE, **options: Any) -> tuple[Reply, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return stream if isinstance(stream, httpx.Response) else httpx.Response(200, stream=stream)

    reply = Reply()
    turns = (Message("system", "S"), Message("user", "你好"))
    asyncio.run(ask(remote, turns, SETTINGS, reply, transport=httpx.MockTransport(handle), **options))
    return reply, seen


def test_an_answer_grows_token_by_token_and_says_why_it_ended() -> None:
    events = [delta(reasoning_content="hm"), delta(content="你"), delta(content="好"), delta(reason="length"), "[DONE]"]
    reply, (request,) = asked(Stream(events), seed=3, thinking=False, tools=[{"name": "f"}])
    assert reply.answer is not None
    assert (reply.text, reply.answer.reasoning, reply.answer.stop_reason) == ("你好", "hm", "length")
    assert reply.answer.fingerprint == ""
    assert json.loads(request.content) == {
        "model": "m",
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "你好"}],
        "stream": True,
        "max_tokens": 7,
        "temperature": 0,
        "seed": 3,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert "authorization" not in request.headers


def test_tool_calls_in_pieces_are_shown_whole() -> None:
    call = {"index": 0, "function": {"name": "f", "arguments": '{"a"'}}
    more = {"index": 0, "function": {"arguments": ":1}"}}
    reply, _ = asked(Stream([delta(tool_calls=[call]), delta(tool_calls=[more], reason="tool_calls")]))
    assert reply.text == '\nf({"a":1})'


def test_nothing_is_sent_without_consent() -> None:
    reply, seen = asked(Stream([]), Remote(THERE.url, "m"))
    assert isinstance(reply.error, ConfigError)
    assert seen == []


@pytest.mark.parametrize(
    ("url", "name", "what"),
    [
        ("https://x/v1", "AWS_SECRET_ACCESS_KEY", "_API_KEY"),
        ("https://x/v1", "SARTOR_WEB_PASSWORD", "_API_KEY"),
        ("https://x/v1", "MISSING_API_KEY", "is not set"),
        ("http://x/v1", "SOME_API_KEY", "unencrypted"),
        ("http://127.evil.example/v1", "SOME_API_KEY", "unencrypted"),
        ("file:///etc/passwd", "", "Not an endpoint address"),
        ("https://a:b@x/v1", "", "Not an endpoint address"),
        ("", "", "Not an endpoint address"),
    ],
)
def test_a_key_goes_only_where_it_is_safe(monkeypatch: pytest.MonkeyPatch, url: str, name: str, what: str) -> None:
    for variable in ("AWS_SECRET_ACCESS_KEY", "SARTOR_WEB_PASSWORD", "SOME_API_KEY"):
        monkeypatch.setenv(variable, "secret")
    with pytest.raises(ConfigError, match=what):
        key_of(url, name)


def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "very-secret")
    remote = Remote(THERE.url, "m", "SOME_API_KEY", consent=True)
    reply, (request,) = asked(httpx.Response(401, text="wrong " + "x" * 10_000), remote)
    assert request.headers["authorization"] == "Bearer very-secret"
    assert reply.error
    assert "401" in (str(reply.error.what))
    assert len(str(reply.error.what)) < 1200
    assert "very-secret" not in str(reply.error)


def test_a_redirect_is_not_followed() -> None:
    reply, seen = asked(httpx.Response(302, headers={"location": "http://evil.example/"}))
    assert reply.error
    assert len(seen) == 1


@pytest.mark.parametrize("event", ["{", "[1]", '{"choices": 3}', {"error": {"message": "full"}}])
def test_a_broken_stream_is_an_error_with_a_way_out(event: Any) -> None:
    reply, _ = asked(Stream([delta(content="a"), event]))
    assert reply.error
    assert str(reply.error.fix)


def test_stopping_keeps_what_came() -> None:
    async def main() -> Reply:
        reply, never = Reply(), asyncio.Event()
        handle = httpx.MockTransport(lambda _: httpx.Response(200, stream=Stream([delta(content="a")], never)))
        reply.ticket = asyncio.create_task(ask(THERE, (Message("user", "x"),), SETTINGS, reply, transport=handle))
        while not reply.text:
            await asyncio.sleep(0)
        reply.stop()
        await reply.ticket
        return reply

    reply = asyncio.run(main())
    assert reply.answer is not None
    assert (reply.text, reply.answer.stop_reason) == ("a", "cancelled")


@pytest.mark.parametrize(
    ("url", "name", "bound", "sent"),
    [
        ("https://evil.example/v1", "OPENAI_API_KEY", "", False),
        ("https://evil.example/v1", "OUR_API_KEY", "", False),
        ("https://llm.example/v1", "OUR_API_KEY", "https://llm.example/v1", True),
        ("https://api.openai.com/v1", "OPENAI_API_KEY", "", True),
    ],
)
def test_whoever_opens_the_page_cannot_send_a_key_elsewhere(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str, bound: str, sent: bool
) -> None:
    monkeypatch.setenv(name, "very-secret")
    monkeypatch.setenv(name.replace("_API_KEY", "_BASE_URL"), bound)
    reply, seen = asked(Stream([delta(content="a")]), Remote(url, "m", name, consent=True))
    assert [request.headers["authorization"] for request in seen] == ["Bearer very-secret"] * sent
    assert bool(reply.error) is not sent
