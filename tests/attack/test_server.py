"""Attacks on `sartor serve`: hosts, sockets that say little, broken JSON, and refused requests that cost the others."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Engine
from sartor.inference.requests import Progress, QueueFull, TokenLogprobs
from sartor.server.app import ServerSettings, create_app
from sartor.server.connections import ConnectionLimits, Connections, limited_protocol
from sartor.server.progress_queue import ProgressQueue
from sartor.server.reading_queue import HEAD_START, ReadingQueue
from sartor.server.schemas import Limits
from support.serving import LIMITS, Served

HELLO = [{"role": "user", "content": "Hi"}]
BODY = json.dumps({"model": "tiny", "messages": HELLO, "max_tokens": 1}).encode()
JSON = (b"content-type", b"application/json")


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> Engine:
    return Engine.load(str(tiny_model_dir), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def app(engine: Engine) -> Iterator[Any]:
    app = create_app(engine, ServerSettings("tiny", GenerationSettings(max_new_tokens=1), LIMITS))
    yield app
    app.state.server.batcher.close()


def ask(app: Any, *headers: tuple[bytes, bytes], path: str = "/v1/models", body: bytes | None = None) -> Any:
    """(status, JSON or None) of one request with exactly these headers."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body or b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET" if body is None else "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": list(headers),
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
        "app": app,
    }
    asyncio.run(app(scope, receive, send))
    answer = b"".join(message.get("body", b"") for message in sent)
    with suppress(ValueError):
        return sent[0]["status"], json.loads(answer)
    return sent[0]["status"], None


def chat(app: Any, body: bytes) -> Any:
    return ask(app, (b"host", b"localhost"), JSON, path="/v1/chat/completions", body=body)


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b"testserver"],
        [b"evil.example"],
        [b"localhost", b"localhost"],
        [b"localhost", b"evil.example"],
        [b"localhost.evil.example"],
        [b"localhost."],
        [b"evil.example:localhost"],
        [b"localhost:80:80"],
        [b"localhost@evil.example"],
        [b"[::1].evil.example"],
        [b"[::1"],
        [b"::1"],
        [b"127.0.0.1.evil.example"],
        [b"192.168.1.4"],
        [b"0.0.0.0"],
        [b""],
        [b"localhost, evil.example"],
        [b"local\xe9host"],
    ],
    ids=repr,
)
def test_a_host_that_is_not_plainly_this_machine_is_refused(app: Any, hosts: list[bytes]) -> None:
    status, answer = ask(app, *((b"host", host) for host in hosts))
    assert status in (400, 403)
    assert answer["error"]["message"]


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:1", b"127.0.0.1:8000", b"[::1]:8000", b"127.0.0.2"])
def test_this_machine_is_let_in(app: Any, host: bytes) -> None:
    assert ask(app, (b"host", host))[0] == 200


def test_a_second_key_or_type_and_a_foreign_target_are_refused(app: Any) -> None:
    ours = (b"host", b"localhost")
    assert ask(app, ours, path="http://evil.example/v1/models")[0] == 400
    assert ask(app, ours, path="*")[0] == 400
    for name in (b"authorization", b"content-type", b"content-length"):
        assert ask(app, ours, (name, b"1"), (name, b"2"))[0] == 400
    assert ask(app, ours, JSON, (b"content-length", b"9" * 5000), path="/v1/chat/completions", body=b"{}")[0] == 413


def test_pages_of_other_sites_are_refused(app: Any) -> None:
    ours = (b"host", b"localhost:8000")
    for origin in (b"http://evil.example", b"null", b"http://localhost:9000", b"http://localhost:8000.evil.example"):
        assert ask(app, ours, (b"origin", origin))[0] == 403
    assert ask(app, ours, (b"origin", b"http://localhost:8000"))[0] == 200
    assert ask(app, ours)[0] == 200


BROKEN = {
    b"": "line 1, column 1",
    b'{"model": "tiny",\n "messages": [}': "line 2, column 15",
    b"[" * 15_000: "64 deep",
    b'{"a":' * 3_000: "64 deep",
    b"[" * 70 + b"]" * 70: "64 deep",
    b'{"model": "\xff"}': "byte 12 is 0xff",
    b'\xef\xbb\xbf{"model": 1}': "BOM",
    b'{"temperature": NaN}': "column 17",
    b'{"x": "NaN",\n"temperature": -Infinity}': "-Infinity is not a number in JSON, line 2, column 16",
    b'{"temperature": 1e999}': "1e999 is out of range",
    b'{"seed": ' + b"9" * 5000 + b"}": "too many digits",
    b'{"messages": [{"content": "a\\ud800"}]}': "messages.0.content: half",
    b'{"a\\udc00": 1}': "half",
    b'{"model": "a", "model": "b"}': "'model' occurs twice",
    b"[]": "body",
    b"null": "body",
    b'"text"': "body",
}


@pytest.mark.parametrize("body", list(BROKEN), ids=lambda body: repr(body[:24]))
def test_broken_json_is_told_what_is_wrong_and_where(app: Any, body: bytes) -> None:
    status, answer = chat(app, body)
    assert status == 400
    assert BROKEN[body] in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"


ODD: list[Any] = [None, True, -1, 0, 10**18, 2**64, 10**40, -0.0, 1e308, [], {}, [[]], {"": ""}, [None]]
ODD += ["", "\x00", "\u202e", "x" * 300, "<|im_end|>", {"type": "text"}, [{"type": "text", "text": ""}]]
FIELDS = [
    "tools",
    "tool_choice",
    "stream_options",
    "n",
    "stop",
    "seed",
    "temperature",
    "top_p",
    "top_k",
    "logprobs",
    "top_logprobs",
    "presence_penalty",
    "user",
    "metadata",
    "name",
    "reasoning_content",
    "tool_calls",
    "tool_call_id",
    "repetition_penalty",
    "max_completion_tokens",
    "response_format",
    "content",
    "role",
    "arguments",
]


def odd_request(random_: random.Random) -> dict[str, Any]:
    """A request that is right but for a few fields."""
    message: dict[str, Any] = {"role": random_.choice(["user", "tool", "assistant", "system"]), "content": "Hi"}
    function: dict[str, Any] = {"name": "f", "arguments": '{"a": 1}'}
    call: dict[str, Any] = {"id": "a", "type": "function", "function": function}
    request: dict[str, Any] = {"model": "tiny", "messages": [message], "max_tokens": 1}
    for _ in range(random_.randint(1, 3)):
        where = random_.choice([request, message, call, function])
        names = [*where, *random_.sample(FIELDS, 3)]
        where[random_.choice(names)] = random_.choice(ODD)
    if random_.random() < 0.3:
        message["tool_calls"] = [call]
    return request


def test_odd_requests_are_answered_or_refused_by_name(app: Any, trials: int) -> None:
    random_ = random.Random(7)
    for _ in range(20 * trials):
        request = odd_request(random_)
        status, answer = chat(app, json.dumps(request).encode())
        assert status < 500, (status, request, answer)
        assert status == 200 or answer is None or answer["error"]["message"], request


def test_changed_bytes_never_break_the_server(app: Any, trials: int) -> None:
    random_ = random.Random(8)
    for _ in range(20 * trials):
        body = bytearray(BODY)
        for _ in range(random_.randint(1, 4)):
            body[random_.randrange(len(body))] = random_.choice(b'"{}[],:\\\x00\xff0e-u')
        status, answer = chat(app, bytes(body))
        assert status < 500, bytes(body)
        assert status == 200 or answer["error"]["message"]


def test_what_cannot_fit_is_refused_before_it_is_tokenized(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(prompt_tokens=100, waiting=2, rows=1)
    app = create_app(engine, ServerSettings("tiny", GenerationSettings(max_new_tokens=1), limits))
    read: list[Any] = []
    monkeypatch.setattr(engine, "prompt", lambda *given: read.append(given))
    long = "x" * (100 * limits.characters_per_token + 1)
    call = {"function": {"name": "f", "arguments": long}}
    tool = {"type": "function", "function": {"name": "f", "description": long}}
    for request in (
        {"messages": [{"role": "user", "content": long}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": long}]}]},
        {"messages": [{"role": "assistant", "content": "", "reasoning_content": long}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [call]}]},
        {"messages": HELLO, "tools": [tool]},
    ):
        status, answer = chat(app, json.dumps({"model": "tiny", **request}).encode())
        assert status == 400, answer
        assert answer["error"]["code"] == "context_length_exceeded"
    assert chat(app, json.dumps({"model": "tiny", "messages": HELLO, "n": 3}).encode())[0] == 429
    assert read == []
    app.state.server.batcher.close()


def test_a_short_prompt_is_read_before_long_ones_but_none_waits_for_ever() -> None:
    done: list[str] = []

    async def read(queue: ReadingQueue, name: str, size: int) -> None:
        async with queue.turn(size):
            await asyncio.sleep(0)
            done.append(name)

    async def all_of_them() -> None:
        queue = ReadingQueue(1000)
        long = [asyncio.create_task(read(queue, f"long {n}", 130_000)) for n in range(40)]
        await asyncio.sleep(0)
        short = [asyncio.create_task(read(queue, f"short {n}", 20)) for n in range(400)]
        await asyncio.gather(*long, *short)

    asyncio.run(all_of_them())
    assert done.index("short 0") <= 2
    passed = done[: done.index("long 1")]
    assert len(passed) <= 130_000 // HEAD_START + 3, "a long one is passed by so many at most"
    assert len(done) == 440


def test_the_line_is_bounded_and_who_leaves_it_leaves_nothing() -> None:
    async def crowd() -> None:
        queue = ReadingQueue(2)
        gate = asyncio.Event()

        async def read() -> None:
            async with queue.turn(1):
                await gate.wait()

        first, second, third = [asyncio.create_task(read()) for _ in range(3)]
        await asyncio.sleep(0)
        assert queue.waiting == 2
        with pytest.raises(QueueFull):
            await read()
        second.cancel()
        await asyncio.wait([second])
        assert queue.waiting == 1
        gate.set()
        await asyncio.gather(first, third)
        async with queue.turn(1):
            assert queue.waiting == 0

    asyncio.run(crowd())


def test_a_client_that_left_the_line_is_not_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(engine, ServerSettings("tiny"))
    read: list[Any] = []
    monkeypatch.setattr(engine, "prompt", lambda *given: read.append(given))
    monkeypatch.setattr("starlette.requests.Request.is_disconnected", lambda self: _true())
    assert chat(app, BODY)[0] == 499
    assert read == []
    app.state.server.batcher.close()


async def _true() -> bool:
    return True


class Wire:
    """A transport that only notes what is done to it."""

    def __init__(self) -> None:
        self.sent, self.closed, self.unread = b"", False, 0
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_protocol(self) -> Any:
        return self.protocol

    def get_extra_info(self, name: str) -> Any:
        return None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads the request and answers once it is whole."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class Line:
    """Connections of one server without sockets, and a clock that stands still."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.connections = Connections(ConnectionLimits(**limits), self.clock)
        self.config = uvicorn.Config(silent, log_level="error", lifespan="off")
        self.state = ServerState()

    def open(self, data: bytes = b"") -> Wire:
        wire = Wire()
        made = limited_protocol(self.connections)(config=self.config, server_state=self.state, app_state={})
        wire.protocol = made
        made.connection_made(wire)  # type: ignore[arg-type]
        if data:
            made.data_received(data)
        return wire


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"


def test_a_half_sent_head_is_not_waited_for() -> None:
    async def run() -> None:
        line = Line(head_s=15.0)
        nothing, half = line.open(), line.open(b"GET / HTTP/1.1\r\nHo")
        line.clock.now += 14
        half.protocol.data_received(b"s")  # a byte now and then does not help
        line.connections.close_late()
        assert not nothing.closed
        assert not half.closed
        line.clock.now += 2
        line.connections.close_late()
        assert nothing.closed
        assert half.closed
        assert not line.connections.open

    asyncio.run(run())


def test_a_body_must_come_at_a_rate_and_a_fast_one_may_be_long() -> None:
    async def run() -> None:
        line = Line(body_s=30.0, body_bytes_per_s=1000)
        slow, fast = line.open(HEAD), line.open(HEAD)
        for _ in range(200):
            line.clock.now += 1
            slow.protocol.data_received(b"x")
            fast.protocol.data_received(b"x" * 2000)
            await asyncio.sleep(0)
            line.connections.close_late()
        assert slow.closed
        assert not fast.closed

    asyncio.run(run())


def test_who_reads_nothing_is_not_waited_for_and_who_reads_slowly_is() -> None:
    async def run() -> None:
        line = Line(stalled_s=60.0, body_s=10_000.0)
        stopped, slow = line.open(HEAD), line.open(HEAD)
        for left in range(100):
            line.clock.now += 1
            stopped.unread, slow.unread = 5000, 5000 - left
            line.connections.close_late()
        assert stopped.closed
        assert not slow.closed

    asyncio.run(run())


def test_between_two_requests_only_the_keep_alive_counts_and_then_the_head_again() -> None:
    async def run() -> None:
        line = Line(head_s=15.0)
        wire = line.open(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
        assert wire.sent.startswith(b"HTTP/1.1 200")
        assert wire.protocol.phase == "idle"
        wire.protocol.data_received(b"GET")
        line.clock.now += 16
        line.connections.close_late()
        assert wire.closed

    asyncio.run(run())


def test_at_the_cap_the_oldest_half_sent_one_makes_room() -> None:
    async def run() -> None:
        line = Line(connections=3)
        working = line.open(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        working.protocol.cycle.more_body = False
        first, second = line.open(b"GET"), line.open(b"GET")
        assert working.protocol.phase == "answer"
        newcomer = line.open(b"GET")
        assert first.closed
        assert not second.closed
        assert not working.closed
        for wire in (second, newcomer):
            wire.protocol.data_received(b" / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        refused = line.open()
        assert b"503" in refused.sent
        assert refused.closed
        assert len(line.connections.open) == 3

    asyncio.run(run())


def test_half_sent_requests_do_not_keep_a_good_one_out(engine: Engine, trials: int) -> None:
    served = Served(engine, ServerSettings("tiny", GenerationSettings(max_new_tokens=1), LIMITS), connections=20)
    port = int(served.address.rpartition(":")[2])
    opened = []
    try:
        for number in range(min(20 + 10 * trials, 300)):
            connection = socket.create_connection(("127.0.0.1", port))
            opened.append(connection)
            with suppress(OSError):
                connection.sendall(HEAD if number % 2 else b"GET /health HTTP/1.1\r\nHost:")
        response = httpx.post(f"{served.address}/v1/chat/completions", content=BODY, headers=[JSON], timeout=None)
        assert response.status_code == 200
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    finally:
        for connection in opened:
            connection.close()
        served.close()


def test_an_answer_that_nobody_reads_is_kept_once_not_squared() -> None:
    async def run() -> None:
        queue = ProgressQueue()
        token = TokenLogprobs(1, -0.5, ())
        for length in range(1, 500):
            queue.put_nowait((0, Progress("x" * length)))
            queue.put_nowait((1, Progress("y" * length, token)))
        assert sum(len(entry[1].text) for entry in queue._line if isinstance(entry[1], Progress)) == 2 * 499
        queue.put_nowait((0, Progress("", error="gone")))
        got = [queue.get_nowait() for _ in range(queue.qsize())]
        assert [p.error for index, p in got if index == 0] == ["gone"]
        assert sum(p.token is not None for index, p in got if index == 1) == 499, "no token is lost"
        assert [p.text for index, p in got if index == 1][-1] == "y" * 499
        queue.put_nowait((0, Progress("z")))
        assert await queue.get() == (0, Progress("z"))

    asyncio.run(run())
