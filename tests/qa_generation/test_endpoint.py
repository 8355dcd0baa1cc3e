"""The endpoint against a server on loopback: busy, odd, slow, and the cap on spending."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sartor.base.errors import EndpointError, RunError
from sartor.base.types import Message
from sartor.cli import app
from sartor.qa_generation.endpoint import ATTEMPTS, Endpoint

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


def test_a_busy_server_is_waited_for_as_it_asks(server: Server) -> None:
    server.answers = [(429, {"Retry-After": "7"}, ""), (503, {}, ""), (200, {}, GOOD)]
    waits: list[float] = []
    assert Endpoint(url(server), "m", "secret", sleep=waits.append)(ASKING).text == "Hi"
    assert waits == [7.0, 14.0]
    assert server.seen == ["Bearer secret"] * 3


def test_html_and_refusals_are_failures(server: Server) -> None:
    server.answers = [(200, {}, "<html>"), (401, {}, "")]
    endpoint = Endpoint(url(server), "m", sleep=lambda _: None)
    with pytest.raises(EndpointError, match="an HTML page"):
        endpoint(ASKING)
    with pytest.raises(EndpointError, match="401"):
        endpoint(ASKING)
    assert len(server.seen) == 2


def test_a_server_that_is_not_there_is_tried_a_few_times() -> None:
    waits: list[float] = []
    with pytest.raises(EndpointError, match="Connect"):
        Endpoint("http://127.0.0.1:1/v1", "m", sleep=waits.append)(ASKING)
    assert len(waits) == ATTEMPTS - 1


def test_the_cap_stops_before_the_request_that_could_pass_it(server: Server) -> None:
    server.answers = [(200, {}, GOOD), (200, {}, GOOD)]
    endpoint = Endpoint(url(server), "m", most_spent=25.0, price_in=0, price_out=1e6, max_tokens=15)
    endpoint(ASKING)
    endpoint(ASKING)
    with pytest.raises(RunError, match="cap"):
        endpoint(ASKING)
    assert endpoint.spent <= 25


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
