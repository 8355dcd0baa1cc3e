"""Files are whole or absent; the trash keeps every copy; signals are heard once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sartor.base import files, process


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "f"
    files.atomic_write(file, "old")
    with pytest.raises(TypeError), files.atomic_open(file) as out:
        out.writelines([b"new", None])  # type: ignore[list-item]
    assert file.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE")
def test_a_full_disk_is_an_error_and_the_old_file_stays(tmp_path: Path) -> None:
    program = f"""
import resource, signal
from pathlib import Path
from sartor.base.errors import SartorError
from sartor.base.files import atomic_write
file = Path({str(tmp_path)!r}) / "f"
atomic_write(file, "old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic_write(file, "x" * 5000)
except SartorError as error:
    print("ERROR", str(error.what), str(error.where))
print(file.read_text(encoding="utf-8"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ERROR Could not write the file: File too large.")
    assert done.stdout.endswith("old\n")


def test_signals_are_heard_and_the_old_handlers_come_back() -> None:
    heard: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with process.handle_signals(heard.append):
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_trash_keeps_every_copy(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "run").mkdir()
        files.move_to_trash(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / ".trash").iterdir()) == ["run-1", "run-2"]


@pytest.mark.parametrize(
    ("given", "kept"), [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_waiting_threads_sleep_soon_unless_the_user_chose(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], kept: str | None
) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    process.limit_thread_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == kept


def test_files_have_the_users_usual_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        files.atomic_write(tmp_path / "made", "x")
        other = tmp_path / "library"
        other.touch(mode=0o600)
        other.chmod(0o600)
        files.fsync_file(other)
        folder = tmp_path / "folder"
        (folder / "in").mkdir(parents=True)
        (folder / "in" / "weights").touch(mode=0o600)
        files.usual_permissions(folder)
        for file in (tmp_path / "made", other, folder / "in" / "weights"):
            assert file.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path: Path) -> None:
    files.atomic_write(tmp_path / "f", '"\ud83d"')
    assert (tmp_path / "f").read_text(encoding="utf-8") == '"\\ud83d"'
