"""The client for chat endpoints: keys, bodies, error codes and retries, against a transport in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from sartor.base.errors import ConfigError
from sartor.base.openai_client import (
    ATTEMPTS,
    Address,
    ChatClient,
    RequestError,
    RequestOptions,
    check_url,
    read_key,
    retry_after,
)
from sartor.base.settings import GenerationSettings
from sartor.base.types import Completion, Message

HELLO = (Message("user", "Hello"),)
GOOD = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "length"}], "usage": {"completion_tokens": 3}}
Handler = Callable[[httpx.Request], httpx.Response]


def client(handle: Handler, waits: list[float]) -> ChatClient:
    address = Address("http://judge/v1/", "m")
    return ChatClient(address, transport=httpx.MockTransport(handle), sleep=waits.append)


def test_retries_double_their_wait_and_follow_retry_after() -> None:
    waits: list[float] = []
    replies = iter(
        [httpx.Response(429, headers={"retry-after": "7"}), httpx.Response(503), httpx.Response(200, json=GOOD)]
    )
    answer = client(lambda request: next(replies), waits).complete(HELLO)
    assert answer == Completion("Hi", tokens=3, stop_reason="length")
    assert waits == [7.0, 14.0]


def _raise(error: Exception) -> httpx.Response:
    raise error


@pytest.mark.parametrize(
    ("handle", "code", "says", "attempts"),
    [
        (lambda _: httpx.Response(429), "endpoint-busy", "status 429", ATTEMPTS),
        (lambda _: httpx.Response(200, html="<html>login</html>"), "endpoint-no-completion", "an HTML page", 1),
        (lambda _: httpx.Response(401, text="bad key"), "endpoint-refused", "status 401: bad key", 1),
        (lambda _: httpx.Response(302, headers={"location": "http://x/"}), "endpoint-refused", "status 302", 1),
        (lambda _: _raise(httpx.ReadTimeout("slow")), "endpoint-unreachable", "ReadTimeout: slow", ATTEMPTS),
        (lambda _: httpx.Response(200, json={"choices": []}), "endpoint-no-completion", "Not a chat", ATTEMPTS),
    ],
)
def test_every_failure_has_a_code(handle: Handler, code: str, says: str, attempts: int) -> None:
    waits: list[float] = []
    with pytest.raises(RequestError, match=says) as caught:
        client(handle, waits).complete(HELLO)
    assert caught.value.code == code
    assert len(waits) == attempts - 1


def test_a_key_is_read_from_the_environment_and_sent_encrypted_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_key("http://gpu/v1", None) is None
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ConfigError, match="SOME_KEY is not set"):
        read_key("https://judge/v1", "SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "abc")
    assert read_key("https://judge/v1", "SOME_KEY") == "abc"
    for local in ("http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:9/v1"):
        assert read_key(local, "SOME_KEY") == "abc"
    for remote in ("http://judge/v1", "http://127.evil.example/v1"):
        with pytest.raises(ConfigError, match="unencrypted"):
            read_key(remote, "SOME_KEY")


def test_addresses_are_checked() -> None:
    assert Address.parse("http://h:1/v1#big/model") == Address("http://h:1/v1", "big/model")
    with pytest.raises(ConfigError, match="names no model"):
        Address.parse("http://h:1/v1")
    for url in ("", "file:///etc/passwd", "https://a:b@x/v1", "http://[", "h:1/v1"):
        with pytest.raises(ConfigError, match="Not an endpoint address"):
            check_url(url)


def test_a_body_holds_what_was_chosen_and_nothing_else() -> None:
    assert RequestOptions(max_tokens=9).body("m", HELLO) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 9,
    }
    sampled = GenerationSettings(do_sample=True, temperature=0.5, top_p=0.25, max_new_tokens=7)
    body = RequestOptions.from_settings(sampled, seed=3).body("m", HELLO, stream=True)
    assert {**body, "messages": []} == {
        "model": "m",
        "messages": [],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.25,
        "seed": 3,
        "stream": True,
    }


def test_retry_after_is_a_number_or_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    assert retry_after("2.5") == 2.5
    assert 3000 < retry_after(soon) <= 3600
    assert [retry_after(value) for value in ("", "soon", "-1")] == [0.0, 0.0, 0.0]
