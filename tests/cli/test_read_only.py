"""Every command in a folder that it may not write to, or on a full or read-only disk: three lines, no traceback."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from sartor import api
from sartor.base import files
from sartor.base.errors import SartorError
from sartor.base.files import atomic_write, system_errors
from support.commands import run as command
from support.process_runs import project_settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="capabilities")
WRITE_ANYWHERE, READ_ANYWHERE = 1 << 1, 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root write where nobody may."""


class Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def like_anybody() -> Iterator[None]:
    """Without root's right to write everywhere, in this thread and those that it starts."""
    libc, header, found = ctypes.CDLL(None, use_errno=True), Header(0x20080522, 0), (Capabilities * 2)()
    assert libc.capget(ctypes.byref(header), found) == 0
    before = found[0].effective
    found[0].effective = before & ~(WRITE_ANYWHERE | READ_ANYWHERE)
    assert libc.capset(ctypes.byref(header), found) == 0
    try:
        yield
    finally:
        found[0].effective = before
        assert libc.capset(ctypes.byref(header), found) == 0


@pytest.fixture(scope="module")
def project(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a finished run, all of it read-only."""
    place = tmp_path_factory.mktemp("read-only")
    model = place / "model"
    shutil.copytree(tiny_model_dir, model)
    settings = project_settings(place, model, longest=1, val_size=4, max_steps=1, max_new_tokens=2)
    run = api.train(**settings)
    api.predict(run.path)
    (place / "doc.txt").write_text("A text about nothing. " * 50, encoding="utf-8")
    _set_modes(place, 0o555, 0o444)
    try:
        yield place
    finally:
        _set_modes(place, 0o755, 0o644)


def _set_modes(place: Path, folder: int, file: int) -> None:
    for path in [place, *place.rglob("*")]:
        path.chmod(folder if path.is_dir() else file)


COMMANDS: dict[str, list[str]] = {
    "import": ["data/sums.json", "--name", "again"],
    "split": ["sums"],
    "train": ["model_name_or_path=model", "dataset=sums", "output_dir=two", "use_cpu=true", "max_steps=1"],
    "train again": ["model_name_or_path=model", "dataset=sums", "output_dir=one", "use_cpu=true", "--fresh"],
    "estimate": ["model_name_or_path=model", "dataset=sums", "output_dir=two", "use_cpu=true", "max_steps=1"],
    "predict": ["one"],
    "compare": ["one", "forgetting_probe=false"],
    "report": ["one"],
    "export": ["one", "--out", "out"],
    "rerun": ["one"],
    "check": ["sums", "--rejects", "rejects.jsonl", "model_name_or_path=model"],
    "demo": ["--folder", "demo", "--max-steps", "1"],
    "generate": ["doc.txt", "--name", "pairs", "--model", "model", "--pairs", "1"],
    "score": ["one/predictions/tuned-held_out/generated_predictions.jsonl"],
    "chat": ["one", "--save-to", "kept.json"],
    "serve": ["one", "--port", "0", "--request-log", "requests.jsonl"],
    "serve without a log": ["one", "--port", "0"],
    "web": [".", "--port", "0", "--no-open"],
}
TYPED = "Who?\n/save\n/exit\n"
"""What is typed into a chat."""


def visit(server: uvicorn.Server, **options: Any) -> None:
    """What a server does from its start to its end, with a few requests in between."""
    server.config.load()
    with TestClient(server.config.app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        for page in ("/", "/health", "/data", "/train", "/runs", "/generate", "/runs/one"):
            assert client.get(page).status_code < 500, page


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_may_not_be_written_to(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "stdin", io.StringIO(TYPED))
    monkeypatch.setattr(uvicorn.Server, "run", visit)  # it would serve until it is stopped
    before = sorted(project.rglob("*"))
    with like_anybody():
        code = command(name.split()[0], *COMMANDS[name])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert sorted(project.rglob("*")) == before
    if code == 0:  # it wrote nothing and needed to write nothing
        return
    assert code == 1
    assert "Error:" in said
    assert "fix" in said, said


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EACCES, "permissions"),
        (errno.EROFS, "another one"),
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.ENOTDIR, "Check the path"),
    ],
)
def test_what_the_system_refuses_names_the_file_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    def refuse(*args: Any, **more: Any) -> Any:
        raise OSError(code, os.strerror(code), str(tmp_path / "f"))

    with pytest.raises(SartorError) as caught, system_errors():
        refuse()
    assert str(caught.value.where) == str(tmp_path / "f")
    assert remedy in str(caught.value.fix)
    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(SartorError, match=remedy):
        atomic_write(tmp_path / "f", "x")


def test_the_python_api_says_so_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SartorError):
        api.import_file(tmp_path / "file" / "x.csv", "x", dataset_dir=tmp_path / "file")
    with pytest.raises(SartorError):
        api.add_row("x", tmp_path / "file", {"conversations": []})
