"""The client for chat endpoints: keys, bodies, error codes and retries, against a transport in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from sartor.base.api_keys import check_url, read_key
from sartor.base.errors import ConfigError
from sartor.base.openai_answers import RequestError, read_error, retry_after
from sartor.base.openai_client import ATTEMPTS, PAID_ATTEMPTS, Address, ChatClient, RequestOptions
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
        (lambda _: _raise(httpx.ReadTimeout("slow")), "endpoint-unreachable", "ReadTimeout: slow", PAID_ATTEMPTS),
        (lambda _: httpx.Response(200, json={"choices": []}), "endpoint-no-completion", "Not a chat", PAID_ATTEMPTS),
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
    assert read_key("https://judge/v1", "SOME_KEY", trusted=True) == "abc"
    for local in ("http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:9/v1"):
        assert read_key(local, "SOME_KEY") == "abc"
    for remote in ("http://judge/v1", "http://127.evil.example/v1"):
        with pytest.raises(ConfigError, match="unencrypted"):
            read_key(remote, "SOME_KEY", trusted=True)


@pytest.mark.parametrize(
    ("name", "url", "base_url", "trusted", "sent"),
    [
        ("OPENAI_API_KEY", "https://api.openai.com/v1", "", False, True),
        ("OPENAI_API_KEY", "https://api.openai.com.evil.example/v1", "", True, False),
        ("OPENAI_API_KEY", "https://evil.example/v1", "", True, False),
        ("OPENAI_API_KEY", "https://proxy.example/v1", "https://proxy.example/v1", False, True),
        ("DEEPSEEK_API_KEY", "https://API.deepseek.com/v1", "", False, True),
        ("DEEPSEEK_API_KEY", "https://api.openai.com/v1", "", True, False),
        ("OUR_API_KEY", "https://llm.example/v1", "", True, True),
        ("OUR_API_KEY", "https://llm.example/v1", "", False, False),
        ("OUR_API_KEY", "https://llm.example/v1", "https://llm.example", False, True),
        ("OUR_API_KEY", "https://llm.example@evil.example/v1", "https://llm.example", False, False),
    ],
)
def test_a_key_goes_only_to_the_hosts_it_is_bound_to(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, base_url: str, trusted: bool, sent: bool
) -> None:
    monkeypatch.setenv(name, "secret-key-1")
    monkeypatch.setenv(name.replace("_API_KEY", "_BASE_URL"), base_url)
    if sent:
        assert read_key(url, name, trusted=trusted) == "secret-key-1"
        return
    with pytest.raises(ConfigError) as caught:
        read_key(url, name, trusted=trusted)
    assert name.replace("_API_KEY", "_BASE_URL") in str(caught.value)
    assert "secret" not in str(caught.value)


def test_following_the_advice_about_a_bound_key_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key-1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError) as caught:
        read_key("https://proxy.example/v1", "OPENAI_API_KEY")
    variable, _, value = str(caught.value.fix).rpartition("export ")[2].partition("=")
    monkeypatch.setenv(variable, value)
    assert read_key("https://proxy.example/v1", "OPENAI_API_KEY") == "secret-key-1"


@pytest.mark.parametrize(
    ("status", "body", "headers", "says"),
    [
        (
            401,
            '{"error": {"message": "Incorrect API key provided: sk-abcdefgh12345678.", "type": "invalid_request_error",'
            ' "param": null, "code": "invalid_api_key"}}',
            {"x-request-id": "req_1"},
            "status 401: Incorrect API key provided: *** (invalid_request_error, invalid_api_key; request req_1)",
        ),
        (404, '{"detail": "Not Found"}', {}, "status 404: Not Found"),
        (422, '{"detail": [{"loc": ["body"], "msg": "no"}]}', {}, 'status 422: [{"loc": ["body"], "msg": "no"}]'),
        (
            400,
            '[{"error": {"code": 400, "message": "bad model", "status": "INVALID_ARGUMENT"}}]',
            {},
            "status 400: bad model (INVALID_ARGUMENT, 400)",
        ),
        (502, "<html><head><title>502 Bad Gateway</title></head></html>", {}, "status 502: 502 Bad Gateway"),
        (400, "the key my-own-secret is \x1b[31mwrong\nhere", {}, "status 400: the key *** is [31mwrong here"),
        (400, '{"error": {"message": ""}}', {}, 'status 400: {"error": {"message": ""}}'),
        (400, "", {}, "status 400."),
    ],
)
def test_what_the_provider_says_is_shown_in_full_and_without_keys(
    status: int, body: str, headers: dict[str, str], says: str
) -> None:
    handle = httpx.MockTransport(lambda _: httpx.Response(status, text=body, headers=headers))
    asked = ChatClient(Address("https://x/v1", "m"), key="my-own-secret", transport=handle, sleep=lambda _: None)
    with pytest.raises(RequestError) as caught:
        asked.complete(HELLO)
    assert says in str(caught.value)
    assert "my-own-secret" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_long_error_is_shown_to_a_bounded_length_and_its_whole_json_is_read() -> None:
    content = ('{"error": {"message": "' + "a" * 5000 + '", "code": "c"}}').encode()
    said, codes = read_error(content)
    assert (len(said), codes) == (5000, ("c",))
    handle = httpx.MockTransport(lambda _: httpx.Response(400, content=content))
    with pytest.raises(RequestError) as caught:
        ChatClient(Address("https://x/v1", "m"), transport=handle).send(HELLO)
    assert 900 < len(str(caught.value.what)) < 1200


def test_a_spent_account_is_not_asked_again() -> None:
    waits: list[float] = []
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with pytest.raises(RequestError, match="exceeded your current quota"):
        client(lambda _: httpx.Response(429, json=body), waits).complete(HELLO)
    assert waits == []


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
    assert [retry_after(value) for value in ("nan", "inf", "1e999", "Mon, 99 Nov 2026")] == [0.0] * 4
