"""The paced endpoint against a server on loopback: retries, refusals, the spending cap."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sartor.base.errors import EndpointError
from sartor.base.types import Message
from sartor.cli import app
from sartor.qa_generation.budget import BudgetExceeded
from sartor.qa_generation.endpoint import PacedEndpoint
from sartor.qa_generation.settings import EndpointSettings

ASKING = (Message("user", "Hello"),)
GOOD = json.dumps({"choices": [{"message": {"content": "Hi"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 10}})


class Server(ThreadingHTTPServer):
    answers: list[tuple[int, dict[str, str], str]]
    seen: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(self.headers["Authorization"])
        status, headers, body = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.answers, made.seen = [], []
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


def endpoint(server: Server, sleep: Callable[[float], object] = lambda _: None, **settings: Any) -> PacedEndpoint:
    return PacedEndpoint(EndpointSettings(url(server), "m", **settings), max_tokens=15, sleep=sleep)


def test_retries_wait_as_long_as_the_server_asks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    server.answers = [(429, {"Retry-After": "7"}, ""), (503, {}, ""), (200, {}, GOOD)]
    waits: list[float] = []
    assert endpoint(server, waits.append, key_env="MY_KEY")(ASKING).text == "Hi"
    assert waits == [7.0, 14.0]
    assert server.seen == ["Bearer secret"] * 3


def test_a_web_page_and_a_refusal_are_not_retried(server: Server) -> None:
    server.answers = [(200, {}, "<html>"), (401, {}, "")]
    asked = endpoint(server)
    with pytest.raises(EndpointError, match="an HTML page"):
        asked(ASKING)
    with pytest.raises(EndpointError, match="401"):
        asked(ASKING)
    assert len(server.seen) == 2


def test_the_cap_stops_before_the_request_that_could_exceed_it(server: Server) -> None:
    server.answers = [(200, {}, GOOD), (200, {}, GOOD)]
    asked = endpoint(server, max_cost=25.0, price_out=1e6)
    asked(ASKING)
    asked(ASKING)
    with pytest.raises(BudgetExceeded, match="cap"):
        asked(ASKING)
    assert asked.budget.spent == 20


def test_an_answer_that_may_be_billed_is_counted_at_its_worst(server: Server) -> None:
    server.answers = [(200, {}, "<html>"), (401, {}, "")]
    asked = endpoint(server, max_cost=100.0, price_out=1e6)
    for spent in (15, 15):
        with pytest.raises(EndpointError):
            asked(ASKING)
        assert asked.budget.spent == spent


def test_a_stopped_endpoint_sends_nothing(server: Server) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(EndpointError, match="stopped"):
        PacedEndpoint(EndpointSettings(url(server), "m"), stop=stop)(ASKING)
    assert server.seen == []


def test_the_command_writes_a_dataset_and_pays_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("Chapter 1\n\nThe door was red.\n", encoding="utf-8")
    content = json.dumps([{"question": "Which?", "answer": "Red.", "quote": "door was\nred"}])
    server.answers = [(200, {}, json.dumps({"choices": [{"message": {"content": content}}]}))]
    words = [
        "generate",
        str(tmp_path / "d.txt"),
        "--name",
        "made",
        "--endpoint",
        url(server),
        "--model",
        "m",
        "--dataset-dir",
        str(tmp_path / "data"),
        "--json",
    ]
    for reused in (0, 1):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["reused"] == reused
    assert len(server.seen) == 1
    assert (tmp_path / "data" / "made.csv").exists()
