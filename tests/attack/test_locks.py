"""Many processes at once: a lock has one holder, ends with it, and what is written under it is never lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sartor.base import locks
from sartor.base.errors import RunError
from sartor.base.locks import file_lock, is_locked, lock_file
from sartor.base.process import ProcessIdentity
from sartor.base.rundir import RunDir

linux = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and fork")

RACER = """
import os, sys, time
from pathlib import Path
from sartor.base.errors import RunError
from sartor.base.locks import file_lock
place, tries = Path(sys.argv[1]), int(sys.argv[2])
inside = place / "inside"
taken = twice = 0
print("ready", flush=True), sys.stdin.readline()
for _ in range(tries):
    try:
        with file_lock(place / "it"):
            taken += 1
            try:
                descriptor = os.open(inside, os.O_CREAT | os.O_EXCL)
                os.close(descriptor)
                os.unlink(inside)
            except FileExistsError:
                twice += 1
    except RunError as error:
        assert error.code == "locked", error
print(taken, twice)
"""
WRITER = """
import sys
from pathlib import Path
from sartor.data.dataset_info import write_entry
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True), sys.stdin.readline()
for number in range(count):
    write_entry(folder, f"{name}-{number}", {"file_name": f"{name}-{number}.json"})
"""
HOLDER = """
import sys, time
from pathlib import Path
from sartor.base.locks import file_lock
with file_lock(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def started(program: str, *words: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def all_at_once(processes: list[subprocess.Popen[str]]) -> list[str]:
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return said


@pytest.mark.real
def test_many_processes_and_never_two_holders(tmp_path: Path, trials: int) -> None:
    said = all_at_once([started(RACER, tmp_path, 100 * trials) for _ in range(4)])
    counts = [tuple(map(int, text.split())) for text in said]
    assert sum(twice for _, twice in counts) == 0
    assert all(taken > 0 for taken, _ in counts)
    assert not lock_file(tmp_path / "it").exists()


@pytest.mark.real
def test_four_writers_of_a_registry_lose_no_entry(tmp_path: Path, trials: int) -> None:
    count = 10 + trials
    all_at_once([started(WRITER, tmp_path, name, count) for name in "abcd"])
    entries = json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8"))
    assert set(entries) == {f"{name}-{number}" for name in "abcd" for number in range(count)}


@pytest.mark.real
def test_a_lock_ends_with_its_killed_holder(tmp_path: Path) -> None:
    holder = started(HOLDER, tmp_path / "run")
    assert is_locked(tmp_path / "run")
    with pytest.raises(RunError, match=f"In use by process {holder.pid}"), file_lock(tmp_path / "run"):
        pass
    holder.kill()
    holder.communicate()
    assert lock_file(tmp_path / "run").exists(), "kill -9 leaves the file"
    assert not is_locked(tmp_path / "run")
    with file_lock(tmp_path / "run"):
        assert is_locked(tmp_path / "run")
    assert not lock_file(tmp_path / "run").exists()


@linux
@pytest.mark.real
def test_a_holder_in_a_container_is_seen_and_its_number_means_nothing_here(tmp_path: Path) -> None:
    """In a PID namespace of its own the process is number 1, as in a container."""
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", HOLDER]
    words += [str(tmp_path / "run")]
    probe = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("PID namespaces cannot be made here")
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    assert holder.stdout
    assert holder.stdout.readline() == "ready\n"
    inside = ProcessIdentity.from_json(json.loads(lock_file(tmp_path / "run").read_text(encoding="utf-8")))
    assert inside
    assert inside.pid == 1
    assert inside.is_alive() is None, "nobody can tell from out here"
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.event("started", process=inside.to_json())
    assert run.state() == "running", "but the lock can"
    holder.kill()
    holder.communicate()
    while is_locked(run.path):
        pass  # the namespace's processes are killed after the one that made it
    assert run.state() == "interrupted"


def test_the_number_of_a_dead_process_that_another_one_has_now(tmp_path: Path) -> None:
    me = ProcessIdentity.of()
    assert me.is_alive()
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for other in (
        {"born": me.born - 1},
        {"boot": "an earlier boot"},
        {"pid": int(gone.stdout), "born": 7.0},
        {"pid": 2**22 + 1},
        {"pid": 1, "born": me.born},
    ):
        assert ProcessIdentity.from_json({**me.to_json(), **other}).is_alive() is False, other  # type: ignore[union-attr]
    for other in ({"host": "elsewhere"}, {"namespace": "pid:[1]"}):
        assert ProcessIdentity.from_json({**me.to_json(), **other}).is_alive() is None, other  # type: ignore[union-attr]
    run = RunDir(tmp_path)
    run.event("started", process={**me.to_json(), "born": 1.0})
    assert run.state() == "interrupted", "a container started again: the same number, another process"


@pytest.mark.parametrize("hostile", [None, 1, "1", [], {}, {"pid": "x"}, {"pid": 1e999, "born": 0}, {"pid": None}])
def test_an_identity_that_is_none(hostile: Any, tmp_path: Path) -> None:
    assert ProcessIdentity.from_json(hostile) is None
    lock_file(tmp_path / "run").write_text(json.dumps(hostile), encoding="utf-8")
    with file_lock(tmp_path / "run"):
        pass


def test_a_second_thread_waits_or_is_told(tmp_path: Path) -> None:
    entered: list[str] = []
    with file_lock(tmp_path / "it"):
        with pytest.raises(RunError, match=f"In use by process {os.getpid()}"), file_lock(tmp_path / "it"):
            pass
        waiting = threading.Thread(target=lambda: entered.extend(_entered(tmp_path / "it")))
        waiting.start()
        assert entered == []
    waiting.join()
    assert entered == ["in"]


def _entered(path: Path) -> Iterator[str]:
    with file_lock(path, wait_s=300):
        yield "in"


def test_asking_whether_it_is_locked_keeps_nobody_out(tmp_path: Path, trials: int) -> None:
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            is_locked(tmp_path / "it")

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(50 * trials):
            with file_lock(tmp_path / "it"):
                pass
    finally:
        stop.set()
        for asker in askers:
            asker.join()


@linux
def test_a_forked_child_neither_keeps_nor_ends_its_parents_lock(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
from sartor.base.locks import file_lock
with file_lock(Path({str(tmp_path / "run")!r})):
    if os.fork() == 0:
        sys.exit(0)  # through the `with`, as an exception in a worker would
    os.wait()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        sys.stdin.read()
        os._exit(0)
    os.kill(os.getpid(), 9)
"""
    holder = started_plain(script)
    assert holder.stdout
    child = int(holder.stdout.readline())
    holder.wait()
    try:
        assert lock_file(tmp_path / "run").exists(), "the first child left it alone"
        assert not is_locked(tmp_path / "run"), "the second one outlives its parent, and holds nothing"
    finally:
        os.kill(child, signal.SIGKILL)
        holder.communicate()


def started_plain(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as Lustre is by default."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)


@linux
@pytest.mark.usefixtures("no_locks")
def test_where_the_file_system_has_no_locks_a_file_stands_for_one(tmp_path: Path) -> None:
    owner = tmp_path / "run.lock.owner"
    with file_lock(tmp_path / "run"):
        assert is_locked(tmp_path / "run")
        with pytest.raises(RunError, match=r"no locks.*delete"), file_lock(tmp_path / "run"):
            pass
    assert list(tmp_path.iterdir()) == []
    me = ProcessIdentity.of().to_json()
    owner.write_text(json.dumps({**me, "born": 1.0}), encoding="utf-8")
    with file_lock(tmp_path / "run"):
        pass
    for unknown in (json.dumps({**me, "host": "elsewhere"}), "{", ""):
        owner.write_text(unknown, encoding="utf-8")
        assert is_locked(tmp_path / "run"), "better a question than two trainings in one folder"
        with pytest.raises(RunError, match="delete"), file_lock(tmp_path / "run"):
            pass
    owner.unlink()
    with file_lock(tmp_path / "run"):
        pass


@linux
@pytest.mark.usefixtures("no_locks")
def test_without_locks_too_there_is_one_holder(tmp_path: Path, trials: int) -> None:
    inside, seen, taken = [0], [0], [0]

    def race() -> None:
        for _ in range(20 * trials):
            with contextlib.suppress(RunError), file_lock(tmp_path / "it", wait_s=300):
                inside[0] += 1
                seen[0] = max(seen[0], inside[0])
                taken[0] += 1
                inside[0] -= 1

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1]
    assert taken[0] == 80 * trials
