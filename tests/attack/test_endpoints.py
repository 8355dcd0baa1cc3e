"""Endpoints that lie, drag and flood: a request ends with an answer or an error, and costs no more than foretold."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sartor.base import openai_client
from sartor.base.errors import SartorError
from sartor.base.openai_answers import MAX_LINE_BYTES, RequestError
from sartor.base.openai_client import MAX_ANSWER_S, MAX_RESPONSE_BYTES, Address, ChatClient
from sartor.base.types import Completion, Message
from sartor.qa_generation import run as qa_run
from sartor.qa_generation.endpoint import PacedEndpoint
from sartor.qa_generation.journal import Journal
from sartor.qa_generation.output import write
from sartor.qa_generation.pairs import Passage, parse
from sartor.qa_generation.prompt_files import read_prompt
from sartor.qa_generation.requests_plan import GenerationPlan, estimate, maximum
from sartor.qa_generation.settings import EndpointSettings, QAGenerationSettings

HELLO = (Message("user", "Hello"),)
URL, KEY = "https://llm.example/v1", "a-secret-key-1"
Handler = Callable[[httpx.Request], httpx.Response]


class Flood(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Endless bytes; counts what was taken."""

    def __init__(self, block: bytes) -> None:
        self.block, self.taken = block, 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.taken += len(self.block)
            yield self.block

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for block in Flood.__iter__(self):
            yield block


def client(handle: Handler, clock: Callable[[], float] | None = None) -> ChatClient:
    transport = httpx.MockTransport(handle)
    made = ChatClient(
        Address(URL, "m"), None, KEY, sleep=lambda _: None, transport=transport, async_transport=transport
    )
    if clock:
        made._clock = clock
    return made


def streamed(handle: Handler, clock: Callable[[], float] | None = None) -> list[Completion]:
    async def collect() -> list[Completion]:
        return [answer async for answer in client(handle, clock).stream(HELLO)]

    return asyncio.run(collect())


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("block", [b"x" * 100_000, b'{"choices": [' + b"[" * 50_000, b" " * 65_536])
def test_an_endless_body_is_cut_off(status: int, block: bytes) -> None:
    flood = Flood(block)
    with pytest.raises(RequestError):
        client(lambda _: httpx.Response(status, stream=flood)).send(HELLO)
    assert flood.taken <= MAX_RESPONSE_BYTES + len(block)


@pytest.mark.parametrize("block", [b"x" * 100_000, b": ping\n\n" * 10_000, b"data: " + b"y" * 65_536])
def test_an_endless_stream_is_cut_off(block: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_client, "MAX_STREAM_BYTES", 4_000_000)
    flood = Flood(block)
    with pytest.raises(RequestError):
        streamed(lambda _: httpx.Response(200, stream=flood))
    assert flood.taken <= (4_000_000 if b"\n" in block else MAX_LINE_BYTES) + 2 * len(block)


def test_an_answer_in_tiny_pieces_has_a_deadline() -> None:
    ticks = itertools.count(0.0, 60.0)
    flood = Flood(b" ")
    with pytest.raises(RequestError, match="still answering") as caught:
        client(lambda _: httpx.Response(200, stream=flood), lambda: next(ticks)).send(HELLO)
    assert not caught.value.retryable
    assert flood.taken <= MAX_ANSWER_S / 60 + 2
    ticks = itertools.count(0.0, 60.0)
    with pytest.raises(RequestError, match="still answering"):
        streamed(lambda _: httpx.Response(200, stream=Flood(b": ping\n")), lambda: next(ticks))


def test_a_compressed_body_is_never_unpacked() -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        bomb = httpx.ByteStream(gzip.compress(b" " * 20_000_000))
        return httpx.Response(200, stream=bomb, headers={"content-encoding": "gzip"})

    with pytest.raises(RequestError, match="compressed"):
        client(handle).send(HELLO)
    with pytest.raises(RequestError, match="compressed"):
        streamed(handle)
    assert set(asked) == {"identity"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["https://evil.example/v1", "http://llm.example/v1", "//evil.example", "/v2"])
def test_no_redirect_is_followed(status: int, to: str) -> None:
    hosts: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        hosts.append(str(request.url))
        return httpx.Response(status, headers={"location": to})

    with pytest.raises(RequestError, match="Redirects are not followed"):
        client(handle).complete(HELLO)
    with pytest.raises(RequestError, match="Redirects are not followed"):
        streamed(handle)
    assert hosts == [f"{URL}/chat/completions"] * 2


ODD = [
    None, True, -1, 0, 1e999, float("nan"), 10**30, "", "x", "\ud800", [], {}, [[]], [{}], {"a": 1}, "9" * 5000,
    {"message": {"content": "hi"}}, {"delta": {"content": 7, "tool_calls": [{"index": "x"}]}},
    {"delta": {"tool_calls": "abc"}}, {"delta": []}, {"error": [1]},
]  # fmt: off


def odd_value(random: random.Random, depth: int = 0) -> Any:
    """JSON as no server should send it, with the names that a reader looks for."""
    if depth > 4 or random.random() < 0.3:
        return random.choice(ODD)
    names = ("choices", "message", "content", "delta", "usage", "prompt_tokens", "completion_tokens", "error", "index")
    names += ("finish_reason", "tool_calls", "function", "arguments", "reasoning_content", "code", "detail", "type")
    if random.random() < 0.4:
        return [odd_value(random, depth + 1) for _ in range(random.randrange(3))]
    return {random.choice(names): odd_value(random, depth + 1) for _ in range(random.randrange(5))}


def whole_answer(random: random.Random) -> dict[str, Any]:
    value = {
        "choices": [{"message": {"content": "Hi"}, "delta": {"content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
    place: Any = value
    for _ in range(random.randrange(4)):  # damage one place in a whole answer
        key = random.choice(list(place) if isinstance(place, dict) else range(len(place)) or [0])
        if not isinstance(place[key], (dict, list)) or not place[key] or random.random() < 0.4:
            place[key] = odd_value(random, 3)
            break
        place = place[key]
    return value


def test_whatever_json_arrives_it_is_an_answer_or_an_error(trials: int, tmp_path: Path) -> None:
    for seed in range(trials * 100):
        rng = random.Random(seed)
        value = odd_value(rng) if rng.random() < 0.5 else whole_answer(rng)
        text = json.dumps(value)
        status = rng.choice([200, 200, 400, 429, 500])
        body = text if rng.random() < 0.9 else text[: rng.randrange(len(text) + 1)]
        for content in (body.encode(), b"data: " + body.encode() + b"\n\ndata: [DONE]\n\n"):
            answers: list[Completion] = []
            for ask in (lambda handle: [client(handle).send(HELLO)], streamed):
                try:
                    answers += ask(lambda _: httpx.Response(status, content=content))  # noqa: B023
                except RequestError as error:
                    str(error).encode()  # no half of a character
            for answer in answers:
                Journal(tmp_path / "j.jsonl").add(f"{seed}", answer.text)
                assert answer.prompt_tokens >= 0
                assert answer.tokens >= 0


def test_a_server_that_does_not_stream_answers_in_one_piece() -> None:
    whole = {"choices": [{"message": {"content": "All at once"}, "finish_reason": "stop"}]}
    assert streamed(lambda _: httpx.Response(200, json=whole))[-1].text == "All at once"
    for content in (b"", b"hello", b"<html>login</html>", b"\xff\xfe\x00", b"event: ping\n\n"):
        with pytest.raises(RequestError):
            streamed(lambda _: httpx.Response(200, content=content))  # noqa: B023


def test_an_error_with_terminal_codes_and_the_key_in_it_is_harmless() -> None:
    said = f"\x1b]0;owned\x07\x1b[2J\u202e key {KEY} Bearer {KEY}" + "z" * 10_000_000
    for handle in (
        lambda _: httpx.Response(400, text=said),
        lambda _: httpx.Response(400, json={"error": {"message": said, "code": said}}),
        lambda _: httpx.Response(200, text="data: " + json.dumps({"error": {"message": said[:900_000]}}) + "\n\n"),
    ):
        with pytest.raises(RequestError) as caught:
            streamed(handle)
        text = str(caught.value)
        assert len(text) < 2000
        assert KEY not in text
        assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_an_odd_address_is_a_plain_error() -> None:
    for url in (
        "https://a..b/v1",
        f"https://{'x' * 64}.example/v1",
        "https://h:99999/v1",
        "https://h/\n",
        "http://\x00/",
    ):
        with pytest.raises(SartorError, match="Not an endpoint address"):
            ChatClient(Address(url, "m"))


class Hostile:
    """A server that answers each request in one of the ways that made a run cost more than was said."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.kinds = self.random.sample(range(9), self.random.randint(1, 4))
        self.seen: list[int] = []
        """Bytes of each prompt."""
        self.billed: list[tuple[int, int]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        messages = json.loads(request.content)["messages"]
        self.seen.append(sum(len(message["content"].encode()) for message in messages))
        kind, long = self.random.choice(self.kinds), "q" * self.random.randrange(3000)
        tokens = (self.seen[-1] // 2, self.random.randrange(1, 1024))
        self.billed.append(tokens)
        if kind in (0, 1):
            self.billed.pop()
            return httpx.Response((429, 503)[kind], headers={"retry-after": "0"})
        if kind == 2:  # garbage, charged for
            return httpx.Response(200, content=b'{"choices": [{"mess')
        if kind == 3:
            raise httpx.ReadTimeout("slow")
        if kind == 4:
            raise httpx.RemoteProtocolError("closed")
        number = len(self.seen)
        pairs = [{"question": f"{number}?{long}", "answer": "Red.", "quote": "was painted red"}]
        text = {5: json.dumps(pairs), 6: "I cannot.", 7: json.dumps(pairs)[:-9], 8: json.dumps(pairs * 9)}[kind]
        used = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
        finish = "length" if kind == 7 else "stop"
        choice = {"message": {"content": text}, "finish_reason": finish}
        return httpx.Response(200, json={"choices": [choice], "usage": used if number % 3 else {}})


def test_a_run_never_needs_more_than_was_foretold(trials: int, tmp_path: Path) -> None:
    for seed in range(trials * 3):
        rng = random.Random(seed)
        passages = [
            Passage("a.txt", "00", "One", n * 90, n * 90 + 80, f"The door number {n} was painted red by Mary. " * 3)
            for n in range(rng.randint(1, 12))
        ]
        cap = rng.choice([None, None, 0.02, 0.0001])
        endpoint = EndpointSettings(URL, "m", price_in=1.0, price_out=2.0, max_cost=cap)
        settings = QAGenerationSettings(
            name="made", endpoint=endpoint, workers=rng.randint(1, 4), pairs=rng.choice([None, 5, 40]),
            per_chunk=rng.choice([None, 1, 4]), multi_turn=rng.random() < 0.2,
        )  # fmt: off
        plan = GenerationPlan(settings, tuple(passages), read_prompt("en", multi_turn=settings.multi_turn))
        hostile = Hostile(seed)
        told = estimate(plan, Journal(tmp_path / f"{seed}.jsonl"))
        complete = PacedEndpoint(
            endpoint, max_tokens=plan.max_tokens, workers=plan.workers, sleep=lambda _: None,
            maximum=maximum(plan, Journal(tmp_path / f"{seed}.jsonl")), transport=httpx.MockTransport(hostile),
        )  # fmt: off
        qa_run.generate(plan, complete, Journal(tmp_path / f"{seed}.jsonl"))
        billed_in, billed_out = (sum(column) for column in zip(*hostile.billed, (0, 0), strict=True))
        assert len(hostile.seen) <= told.max_calls, (seed, hostile.kinds)
        assert billed_in <= told.max_tokens_in, (seed, hostile.kinds)
        assert billed_out <= told.max_tokens_out, (seed, hostile.kinds)
        assert complete.budget.spent <= told.max_cost + 1e-12, (seed, hostile.kinds)
        assert (billed_in + 2 * billed_out) / 1e6 <= told.max_cost + 1e-12, (seed, hostile.kinds)
        assert told.calls <= told.max_calls
        assert told.cost <= told.max_cost
        assert complete.budget.requests == len(hostile.seen)


def test_an_endpoint_that_ignores_max_tokens_ends_the_run(tmp_path: Path) -> None:
    seen: list[int] = []

    def greedy(request: httpx.Request) -> httpx.Response:
        seen.append(1)
        choice = {"message": {"content": "[]"}, "finish_reason": "stop"}
        return httpx.Response(200, json={"choices": [choice], "usage": {"completion_tokens": 10**6}})

    passages = tuple(Passage("a.txt", "00", "One", n, n + 50, f"Door {n} was painted red by Mary.") for n in range(9))
    endpoint = EndpointSettings(URL, "m", price_out=1.0)
    plan = GenerationPlan(QAGenerationSettings(name="x", endpoint=endpoint, workers=1), passages, read_prompt("en"))
    journal = Journal(tmp_path / "j.jsonl")
    complete = PacedEndpoint(endpoint, maximum=maximum(plan, journal), transport=httpx.MockTransport(greedy))
    found = qa_run.generate(plan, complete, journal)
    assert (len(seen), found.stopped, found.requests) == (1, "cap", 1)


LONG = 150_000
ANSWERS = {
    "open braces": "{" * LONG,
    "nested": '{"a":' * 30_000 + "1" + "}" * 30_000,
    "beginnings": '{"question":"a","answer":"b"' * 6000,
    "lists": "[" * LONG,
    "mixed": "{[" * LONG,
    "spaces": "{" + " " * LONG,
    "brace and space": "{ " * LONG,
    "lines": "Q: a\n" * 30_000,
    "a long quote": json.dumps({"question": "q?", "answer": "Mary", "quote": "painted " * 20_000}),
    "many spaces": json.dumps({"question": "q?", "answer": "Mary", "quote": "painted" + " " * LONG + "red"}),
    "turns": json.dumps({"turns": [{"question": "a?", "answer": "Mary", "quote": "painted red"}] * 3000}),
    "numbers": json.dumps({"question": 5, "answer": [1], "quote": {}}),
    "half a character": '{"question":"\\ud800?","answer":"Mary \\udfff","quote":"painted red"}',
    "nul": '{"question":"a\\u0000b\\r\\n=1+1","answer":"\\u202eMary","quote":"painted red"}',
    "not a number": '[{"question":NaN,"answer":1e999,"quote":"x"}]',
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("multi_turn", [False, True])
@pytest.mark.timeout(60)  # for hangs: the slow ones took minutes, and hours at the size that an endpoint may send
def test_a_hostile_answer_is_read_and_written_or_rejected(kind: str, multi_turn: bool, tmp_path: Path) -> None:
    passage = Passage("a.txt", "00", "One", 0, 50, "The door was painted red by Mary. " * 30)
    good, bad = parse(ANSWERS[kind] * 3, passage, 4, multi_turn)
    assert good or bad
    if good:
        table, rows = write(good, "made", tmp_path)
        assert table.read_text(encoding="utf-8-sig")
        assert json.loads(rows.read_text(encoding="utf-8"))


def test_the_work_on_an_answer_grows_with_its_length_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    plain = json.JSONDecoder.raw_decode

    def counted(self: json.JSONDecoder, text: str, place: int = 0) -> Any:
        tried.append(place)
        return plain(self, text, place)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    passage = Passage("a.txt", "00", "One", 0, 50, "The door was painted red by Mary.")
    for kind in ("open braces", "nested", "beginnings", "mixed", "brace and space"):
        tried.clear()
        parse(ANSWERS[kind], passage, 4)
        assert len(tried) <= 200, kind
