"""The request log: one line for each request, refused ones too; texts only where they were asked for."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import httpx
import openai
import pytest

from sartor.base.errors import ConfigError
from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Engine
from sartor.server.app import ServerSettings
from sartor.server.request_log import open_log
from sartor.server.run import _log
from support.serving import LIMITS, Served

SECRET = "a private question"


@pytest.fixture
def serving(engine: Engine) -> Callable[..., Any]:
    @contextmanager
    def made(log: TextIO, texts: bool = False) -> Iterator[Served]:
        settings = ServerSettings("tiny", GenerationSettings(max_new_tokens=8), LIMITS, None, log, texts)
        served = Served(engine, settings)
        try:
            yield served
        finally:
            served.close()

    return made


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_each_request_is_one_line_without_its_texts(serving: Callable[..., Any]) -> None:
    log = io.StringIO()
    with serving(log) as served, openai.OpenAI(base_url=f"{served.address}/v1", api_key=SECRET) as client:
        chat: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": SECRET}]}
        answer = client.chat.completions.create(**chat)
        list(client.chat.completions.create(**chat, stream=True))
        client.completions.create(model="tiny", prompt=SECRET, max_tokens=3)
        httpx.get(f"{served.address}/v1/models")
        httpx.post(f"{served.address}/v1/chat/completions", json={**chat, "model": "other"})
        httpx.get(served.address, headers={"host": "evil.example"})
        httpx.get(f"{served.address}/{'y' * 5000}%0A%7B")
    found = lines(log)
    assert [(line["path"], line["status"]) for line in found[:6]] == [
        ("/v1/chat/completions", 200),
        ("/v1/chat/completions", 200),
        ("/v1/completions", 200),
        ("/v1/models", 200),
        ("/v1/chat/completions", 404),
        ("/", 403),
    ]
    first, streamed, raw = found[:3]
    assert answer.usage is not None
    assert first["id"] == answer.id
    for line in (first, streamed):
        assert (line["prompt_tokens"], line["completion_tokens"]) == (
            answer.usage.prompt_tokens,
            answer.usage.completion_tokens,
        )
    assert (first["stream"], streamed["stream"], raw["completion_tokens"]) == (False, True, 3)
    assert all(line["seconds"] >= 0 and line["time"].endswith("+00:00") for line in found)
    assert len(found[6]["path"]) <= 200
    text = log.getvalue()
    assert SECRET not in text
    assert answer.choices[0].message.content not in text


def test_texts_are_written_where_they_are_asked_for(serving: Callable[..., Any]) -> None:
    log = io.StringIO()
    with serving(log, True) as served, openai.OpenAI(base_url=f"{served.address}/v1", api_key="x") as client:
        answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": SECRET}])
    (line,) = lines(log)
    assert line["request"]["messages"][0]["content"] == SECRET
    assert line["answers"] == [answer.choices[0].message.content]


def test_a_full_disk_ends_the_log_and_not_the_server(
    serving: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    with serving(Full()) as served:
        for _ in range(3):
            assert httpx.get(f"{served.address}/health").status_code == 200
    assert capsys.readouterr().err.count("No space left") == 1


def test_the_file_is_appended_to_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    for number in range(2):
        with open_log(path) or io.StringIO() as file:
            file.write(f"{number}\n")
    assert path.read_text(encoding="utf-8") == "0\n1\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="Cannot write the request log"):
        _log(tmp_path / "none" / "x.jsonl", False)
    with pytest.raises(ConfigError, match="no request log"):
        _log(None, True)
