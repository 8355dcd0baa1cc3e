"""A hundred clients at once, ten of whom hardly read: all are served, fairly; and no request makes a 5xx."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import httpx
import hypothesis
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase

from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Engine
from sartor.server.app import ServerSettings, create_app
from sartor.server.schemas import Limits
from support.serving import Served

LOCAL = {"host": "localhost"}


def question(number: int) -> list[Any]:
    return [{"role": "user", "content": f"Question {number}: " + "why? " * (number % 7)}]


def slow_reader(address: str, number: int) -> socket.socket:
    """A client that asks for a long stream and then does not read."""
    body = {
        "model": "tiny",
        "messages": question(number),
        "stream": True,
        "max_tokens": 200,
        "logprobs": True,
        "top_logprobs": 20,
    }
    content = json.dumps(body).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", int(address.rpartition(":")[2])))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(content)}"
    )
    connection.sendall(head.encode() + b"\r\nContent-Type: application/json\r\n\r\n" + content)
    return connection


async def crowd(address: str, clients: int) -> list[tuple[int, float, Any]]:
    """Each client's number, seconds and answer, in the order in which they were done."""
    done: list[tuple[int, float, Any]] = []
    limits = httpx.Limits(max_connections=None)
    async with openai.AsyncOpenAI(
        base_url=f"{address}/v1", api_key="x", max_retries=0, http_client=openai.DefaultAsyncHttpxClient(limits=limits)
    ) as client:

        async def ask(number: int) -> None:
            began = time.perf_counter()
            answer = await client.chat.completions.create(
                model="tiny" if number % 3 else "tiny:base", messages=question(number), max_tokens=12
            )
            done.append((number, time.perf_counter() - began, answer))

        await asyncio.gather(*(ask(number) for number in range(clients)))
    return done


@pytest.mark.parametrize("clients", [20, pytest.param(100, marks=pytest.mark.real)])
def test_all_clients_are_served_while_a_tenth_hardly_reads(engine: Engine, clients: int, trials: int) -> None:
    served = Served(engine, ServerSettings("tiny", limits=Limits(waiting=1024, rows=32)))
    try:
        slow = [slow_reader(served.address, number) for number in range(clients // 10)]
        for _ in range(max(1, trials // 10)):
            done = asyncio.run(crowd(served.address, clients))
            assert len(done) == clients
            for number, _, answer in done[:: max(1, len(done) // 10)]:
                weights = "tuned" if number % 3 else "base"
                alone = engine.chat(question(number), GenerationSettings(max_new_tokens=12), weights=weights)  # type: ignore[arg-type]
                assert answer.choices[0].message.content == alone.text
                assert answer.system_fingerprint == f"fp_{engine.fingerprint(weights)}"  # type: ignore[arg-type]
            seconds = sorted(took for _, took, _ in done)
            assert seconds[-1] < 20 * max(seconds[len(seconds) // 2], 0.05)  # nobody starves
        for connection in slow:
            with connection:
                text = b"".join(iter(lambda c=connection: c.recv(65536), b""))  # type: ignore[misc]
            assert b"[DONE]" in text
            assert text.count(b'"finish_reason": "length"') == 1
    finally:
        served.close()


def test_schemathesis_finds_no_5xx(engine: Engine, trials: int) -> None:
    app = create_app(engine, ServerSettings("tiny", GenerationSettings(max_new_tokens=1), Limits(answer_tokens=2)))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=LOCAL)
    seen: list[tuple[str, int]] = []

    for operation in schema.get_all_operations():
        fuzz(operation.ok(), seen, trials)
    app.state.server.batcher.close()
    assert seen
    assert {path for path, status in seen if status == 200} >= {"/health", "/v1/models", "/v1/chat/completions"}


def fuzz(operation: Any, seen: list[tuple[str, int]], trials: int) -> None:
    @hypothesis.settings(
        max_examples=6 * trials,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def run(case: Any) -> None:
        if isinstance(case.body, dict) and len(seen) % 4:  # else all end at the unknown model
            case.body["model"] = "tiny"
        response = case.call(headers=LOCAL)
        seen.append((operation.path, response.status_code))
        assert response.status_code < 500, (response.status_code, response.text, case.body)

    run()
