"""Sources beyond the folder: scripts and the network need permission; private addresses and redirects are refused."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sartor.base.addresses import is_public
from sartor.base.errors import DataError
from sartor.base.permissions import Permissions
from sartor.data import remote
from sartor.data.dataset_info import parse_entry
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.load import load_spec

ROWS = b'[{"instruction": "a?", "output": "b"}]'


def spec(folder: Path, **entry: Any) -> DatasetSpec:
    return parse_entry("d", entry, folder / "dataset_info.json")


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/on.json":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1/rows.json")
            self.end_headers()
            return
        found = self.path.startswith("/rows.json")
        self.send_response(200 if found else 404)
        self.end_headers()
        if found:
            self.wfile.write(ROWS)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_the_network_needs_permission(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is on the network") as refused:
        load_spec(spec(tmp_path, cloud_file_name="https://example.org/rows.json"))
    assert "--allow-network" in str(refused.value.fix)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.5.5",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "fec0::1",
        "2001:0:808:808::80ff:fffe",
        "2001:4860::5efe:a00:1",
        "::7f00:1",
        "::",
    ],
)
def test_private_addresses_are_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "64:ff9b::808:808", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "8.8.8.8"]
)
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"])
def test_private_hosts_are_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not public|not found"):
        load_spec(
            spec(tmp_path, cloud_file_name=f"http://{host}/rows.json"), permissions=Permissions(False, False, True)
        )


def test_one_private_address_of_several_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: both)
    with pytest.raises(DataError, match=r"10\.0\.0\.1, which is not public"):
        load_spec(
            spec(tmp_path, cloud_file_name="http://two.example/x.json"), permissions=Permissions(False, False, True)
        )


def test_a_file_is_fetched_and_a_redirect_is_not_followed(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "is_public", lambda address: True)
    allowed = Permissions(allow_network=True)
    loaded = load_spec(spec(tmp_path, cloud_file_name=f"{server}/rows.json?v=1"), permissions=allowed)
    assert [m.text for m in loaded.examples[0].messages] == ["a?", "b"]  # type: ignore[union-attr]
    assert loaded.files[0].sha256 == hashlib.sha256(ROWS).hexdigest()
    with pytest.raises(DataError, match="redirects to http://127") as refused:
        load_spec(spec(tmp_path, cloud_file_name=f"{server}/on.json"), permissions=allowed)
    assert str(refused.value.where).endswith("/on.json")
    with pytest.raises(DataError, match="404"):
        load_spec(spec(tmp_path, cloud_file_name=f"{server}/none.json"), permissions=allowed)


@pytest.mark.parametrize(
    "url", ["file:///etc/hosts", "local:///x", "simplecache::file:///x", "/etc/hosts", "ftp://x/y"]
)
def test_only_cloud_stores_are_asked(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not the address of a supported store"):
        load_spec(spec(tmp_path, cloud_file_name=url), permissions=Permissions(allow_network=True))


def script(folder: Path, text: str) -> DatasetSpec:
    (folder / "made").mkdir()
    (folder / "made" / "made.py").write_text(text, encoding="utf-8")
    return spec(folder, script_url="made", split="test")


LOADER = "def load(split):\n    open('ran', 'w').close()\n    yield {'instruction': split, 'output': 'b'}\n"


def test_a_script_runs_with_consent_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entry = script(tmp_path, LOADER)
    with pytest.raises(DataError, match="would run") as refused:
        load_spec(entry)
    assert hashlib.sha256(LOADER.encode()).hexdigest() in str(refused.value.where)
    assert not (tmp_path / "ran").exists()
    loaded = load_spec(entry, permissions=Permissions(allow_scripts=True))
    assert [m.text for m in loaded.examples[0].messages] == ["test", "b"]  # type: ignore[union-attr]
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(("text", "said"), [("1/0", "The script failed"), ("x = 1", "neither load")])
def test_a_bad_script_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        load_spec(script(tmp_path, text), permissions=Permissions(allow_scripts=True))


@pytest.mark.parametrize("url", ["../made", "/tmp/made", "made\0x", "absent"])
def test_a_script_elsewhere_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_spec(spec(tmp_path, script_url=url), permissions=Permissions(allow_scripts=True))


def test_modelscope_is_used_when_asked_for_or_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = spec(tmp_path, hf_hub_url="a/b", ms_hub_url="c/d", file_name="x.json")
    monkeypatch.delenv("USE_MODELSCOPE_HUB", raising=False)
    assert remote.place_of(both) == "hf:a/b"
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert remote.place_of(both) == "ms:c/d"
    assert remote.place_of(spec(tmp_path, hf_hub_url="a/b")) == "hf:a/b"
    monkeypatch.delenv("USE_MODELSCOPE_HUB")
    assert remote.place_of(spec(tmp_path, ms_hub_url="c/d", file_name="x.json")) == "ms:c/d"
