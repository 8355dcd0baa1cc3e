"""Who is let in, what is refused and how, and that work stops when nobody waits for it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sartor.base.errors import ConfigError, RunError
from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Engine
from sartor.server.app import ServerSettings
from sartor.server.run import bound, require_key
from sartor.server.schemas import Limits
from support.serving import LIMITS, Served

HELLO = [{"role": "user", "content": "Hi"}]


def post(served: Served, body: Any = None, **options: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **options.pop("headers", {})}
    return httpx.post(
        f"{served.address}/v1/chat/completions", content=content, headers=headers, timeout=None, **options
    )


def until(true: Callable[[], bool], seconds: float = 120.0) -> bool:
    """Whether it becomes true; the limit is for hangs."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, ""),
        (b"[" * 15_000, 400, ""),
        (b"\xff\xfe", 400, ""),
        ({}, 400, "model"),
        ({"model": "tiny", "messages": []}, 400, "messages"),
        ({"model": "tiny", "messages": [{"role": "wizard", "content": "x"}]}, 400, "role"),
        ({"model": "no", "messages": HELLO}, 404, "tiny"),
        ({"model": "tiny", "messages": HELLO, "n": 5}, 400, "at most 4"),
        ({"model": "tiny", "messages": HELLO, "max_tokens": 201}, 400, "maximum is 200"),
        ({"model": "tiny", "messages": HELLO, "temperature": -1}, 400, "temperature"),
        (b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"temperature":NaN}', 400, "column 74"),
        ({"model": "tiny", "messages": [{"role": "user", "content": "x" * 400}]}, 400, "300"),
        ({"model": "tiny", "messages": HELLO, "chat_template": "{{ 7*7 }}"}, 400, "chat_template"),
        ({"model": "tiny", "messages": HELLO, "chat_template_kwargs": {}}, 400, "chat_template_kwargs"),
        ({"model": "tiny", "messages": HELLO, "adapter": "/etc"}, 400, "adapter"),
        (
            {
                "model": "tiny",
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://localhost/x.png"}}]}
                ],
            },
            400,
            "content",
        ),
        ({"model": "tiny", "messages": HELLO, "top_logprobs": 2}, 400, "logprobs"),
        ({"model": "tiny", "messages": HELLO, "response_format": {"type": "xml"}}, 400, "response_format"),
        ({"model": "tiny", "messages": [{"role": "user", "content": "x" * 30_000}]}, 413, "20000 bytes"),
        (b'{"model":"tiny","messages":[{"role":"user","content":"\\ud800"}]}', 400, ""),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(served: Served, body: Any, status: int, says: str) -> None:
    response = post(served, body)
    assert response.status_code == status, response.text
    assert says in response.json()["error"]["message"]


def test_control_tokens_in_a_message_stay_text(served: Served) -> None:
    response = post(served, {"model": "tiny", "messages": [{"role": "user", "content": "<|im_end|>"}]})
    assert response.status_code == 200
    plain = post(served, {"model": "tiny", "messages": [{"role": "user", "content": "x"}]})
    grown = response.json()["usage"]["prompt_tokens"] - plain.json()["usage"]["prompt_tokens"]
    assert grown == len("<|im_end|>") - 1


def test_other_sites_and_other_names_do_not_get_in(served: Served) -> None:
    body = {"model": "tiny", "messages": HELLO}
    assert post(served, body, headers={"host": "evil.example"}).status_code == 403
    assert post(served, body, headers={"content-type": "text/plain"}).status_code == 415
    assert httpx.get(f"{served.address}/v1/models", headers={"host": "localhost:1"}).status_code == 200
    assert "access-control-allow-origin" not in post(served, body, headers={"origin": "http://evil.example"}).headers


def test_a_body_without_a_length_is_counted_as_it_comes(served: Served) -> None:
    def endless() -> Any:
        for _ in range(100):
            yield b" " * 1000

    response = httpx.post(
        f"{served.address}/v1/chat/completions", content=endless(), headers={"content-type": "application/json"}
    )
    assert response.status_code == 413


def test_a_key_is_asked_for_everywhere_but_at_health(engine: Engine) -> None:
    served = Served(engine, ServerSettings("tiny", GenerationSettings(max_new_tokens=2), LIMITS, api_key="k" * 20))
    try:
        for key in ("", "Bearer", "Bearer " + "k" * 19, "Bearer " + "k" * 21, "Bearer é"):
            response = httpx.get(f"{served.address}/v1/models", headers={"authorization": key.encode()})
            assert response.status_code == 401, key
            assert response.headers["www-authenticate"] == "Bearer"
        right = {"authorization": "Bearer " + "k" * 20}
        assert httpx.get(f"{served.address}/v1/models", headers=right).status_code == 200
        assert httpx.get(f"{served.address}/metrics").status_code == 401
        assert httpx.get(f"{served.address}/health").json()["status"] == "ok"
        assert httpx.get(f"{served.address}/health", headers={"host": "my.machine"}).status_code == 200
    finally:
        served.close()


def test_a_full_queue_is_429_with_a_time_to_come_back(engine: Engine) -> None:
    served = Served(engine, ServerSettings("tiny", limits=Limits(waiting=2, rows=1)))
    try:
        response = post(served, {"model": "tiny", "messages": HELLO, "n": 3})
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == "queue_full"
    finally:
        served.close()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_stops_the_work(engine: Engine, stream: bool) -> None:
    served = Served(engine, ServerSettings("tiny", limits=Limits(answer_tokens=400, rows=2)))
    batcher = served.inside.batcher
    try:
        body = json.dumps({"model": "tiny", "messages": HELLO, "stream": stream, "max_tokens": 400, "n": 8}).encode()
        with socket.create_connection(("127.0.0.1", int(served.address.rpartition(":")[2]))) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            assert until(lambda: batcher.running == 2)
        assert until(lambda: batcher.running == 0 and batcher.waiting == 0, 3.0)
        text = httpx.get(f"{served.address}/metrics").text
        assert "sartor_cancelled_total 1.0" in text
    finally:
        served.close()


def test_a_failed_batch_is_an_error_and_the_server_lives(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"model": "tiny", "messages": HELLO}
    with monkeypatch.context() as patch:
        patch.setattr(served.inside.batcher, "_forward", lambda *a: 1 / 0)
        response = post(served, body)
        assert response.status_code == 500
        assert "ZeroDivisionError" in response.json()["error"]["message"]
        assert "server_error" in post(served, {**body, "stream": True}).text
    assert post(served, body).status_code == 200


def test_metrics_count_what_happened(served: Served) -> None:
    def value(name: str) -> float:
        lines = httpx.get(f"{served.address}/metrics").text.splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    post(served, {"model": "tiny", "messages": HELLO, "max_tokens": 3})
    before = value('sartor_tokens_total{kind="answer"}')
    post(served, {"model": "tiny", "messages": HELLO, "max_tokens": 3})
    assert value('sartor_tokens_total{kind="answer"}') == before + 3
    assert value("sartor_request_seconds_count") >= 2
    assert value("sartor_running") == 0


def test_the_door_stays_closed_without_a_key() -> None:
    require_key("127.0.0.1", None)
    require_key("::1", None)
    require_key("0.0.0.0", "k" * 16)
    with pytest.raises(ConfigError, match="no API key"):
        require_key("0.0.0.0", None)
    with pytest.raises(ConfigError, match="too short"):
        require_key("192.168.1.2", "secret")


def test_a_port_in_use_is_said(served: Served) -> None:
    with pytest.raises(RunError, match="in use") as caught:
        bound("127.0.0.1", int(served.address.rpartition(":")[2]))
    assert "--port" in str(caught.value.fix)
