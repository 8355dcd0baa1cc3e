"""A mistyped run, folder or model is said at once, with the nearest names, and is never taken for a hub's model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.base.errors import SartorError
from sartor.model import known_names
from sartor.model.known_names import folders_near, require_known


@pytest.fixture
def here(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs and a model."""
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text("dataset: pride\n", encoding="utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny-llama").symlink_to(tiny_model_dir)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("runs/frist", "runs/first"),
        ("frist", "runs/first"),
        ("./runs/secnd", "runs/second"),
        ("models/tiny-lama", "models/tiny-llama"),
        ("smollm2-135", "smollm2-135m"),
        ("runs\\first", "runs/first"),
        ("runs/first/", "runs/first"),
    ],
)
def test_the_nearest_name_is_shown(here: Path, typed: str, meant: str) -> None:
    assert meant in str(folders_near(typed))


COMMANDS: dict[str, Callable[[str], Any]] = {
    "chat": api.chat,
    "compare": api.compare,
    "compare several": lambda name: api.compare_several("base", name),
    "export": api.export,
    "predict": api.predict,
    "report": api.report,
    "rerun": api.rerun,
    "train": lambda name: api.train(model_name_or_path=name, dataset="pride"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_the_run_that_was_meant(here: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is not asked: `runs/` is a folder here."""
    monkeypatch.setattr(known_names, "_require_on_hub", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(SartorError) as error:
        COMMANDS[command]("runs/frist")
    assert "runs/first" in str(error.value.fix)
    assert error.value.code == "not-found"


@pytest.mark.parametrize("name", ["a/b/c", "runs/x", "../there", "/no/such/model", "~/nothing", "--model", "a model"])
def test_what_cannot_be_a_hubs_name_is_not_asked_for(here: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_names, "_require_on_hub", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(SartorError, match="no such folder") as error:
        require_known(name)
    assert "Repo id" not in str(error.value)


class Hub(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):  # the library asks for other things of its own
            type(self).asked.append(self.path)
        known = self.path.startswith("/api/models/org/known")
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("X-Error-Code", "RepoNotFound")
        body = b'{"id": "org/known", "modelId": "org/known"}' if known else b"{}"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub on loopback that knows one model; what it was asked."""
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    known_names._require_on_hub.cache_clear()
    yield Hub.asked
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_once(here: Path, hub: list[str]) -> None:
    require_known("org/known")
    require_known("org/known")
    assert hub == ["/api/models/org/known"]
    with pytest.raises(SartorError, match="neither a folder here nor a public model") as error:
        require_known("tiny-lama")
    assert "models/tiny-llama" in str(error.value.fix) or "Here:" in str(error.value.fix)
    assert len(hub) == 2


def test_a_hub_out_of_reach_is_not_asked_again_and_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection that is refused, then the error."""
    import socket

    known_names._require_on_hub.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    tried: list[Any] = []
    real = socket.create_connection

    def counted(*args: Any, **options: Any) -> Any:
        tried.append(args[0])
        return real(*args, **options)

    monkeypatch.setattr(socket, "create_connection", counted)
    with pytest.raises(SartorError, match="cannot be reached"):
        require_known("org/unknown")
    assert len(tried) == 1
