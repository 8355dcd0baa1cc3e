"""The operating system's corner: files whole or absent, durable renames, locks, signals; knows no formats."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO

from sartor.base.errors import RunError

_M_MMAP_THRESHOLD = -3


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder durable; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_open(path: Path, mode: str = "wb") -> Iterator[IO[bytes]]:
    """Open a file beside `path` for writing; on success it is fsynced and renamed over `path`, else removed.

    Raises: RunError when the disk is full or not writable; the old file is untouched then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, aside)
        else:
            os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content` (text as UTF-8), whole or not at all. Raises: RunError on a full disk."""
    with atomic_open(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def disk_error(error: OSError, path: Path) -> RunError:
    """The error to show for a failed write."""
    fix = "Free some space (or choose another folder) and run the same command again."
    return RunError(f"Writing failed: {error.strerror or error}.", str(path), fix)


def fsync_file(path: Path) -> None:
    """Flush a file that another library wrote to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sha256_file(path: Path) -> str:
    """The file's SHA-256, read in blocks, as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def move_to_trash(path: Path) -> Path:
    """Rename `path` to `.trash/<name>-<n>` beside it, and say where it went."""
    trash = path.parent / ".trash"
    trash.mkdir(parents=True, exist_ok=True)
    number = 1
    while (target := trash / f"{path.name}-{number}").exists():
        number += 1
    os.replace(path, target)
    fsync_folder(path.parent)
    return target


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a folder or file for this process alone, through `<path>.lock` naming the holder's process id.

    Raises: RunError when another living process holds it; a dead one's lock is taken over.
    """
    lock = path.with_name(path.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            holder = _holder(lock)
            if holder is not None and process_lives(holder):
                raise RunError(
                    f"Process {holder} is working here already.", str(path), "Wait for it, or stop it first."
                ) from None
            with contextlib.suppress(FileNotFoundError):
                lock.unlink()
    try:
        os.write(descriptor, str(os.getpid()).encode())
        os.close(descriptor)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            lock.unlink()


def process_lives(pid: int) -> bool:
    """Whether a process of this number runs now (a zombie does not)."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def heard_signals(on_signal: Callable[[int], None]) -> Iterator[None]:
    """Call `on_signal(number)` on the first SIGINT, SIGTERM or SIGHUP; a second SIGINT acts as usual.

    Only the main thread can listen; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if heard and number == signal.SIGINT:
            raise KeyboardInterrupt
        heard.append(number)
        on_signal(number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _holder(lock: Path) -> int | None:
    try:
        return int(lock.read_text(encoding="ascii") or "0") or None
    except (FileNotFoundError, ValueError):
        return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def no_cycle_search() -> Iterator[None]:
    """While many objects without cycles are made, Python does not look for cycles again and again.

    Loading and encoding 20,000 rows takes a sixth less time (measured 2026-11-23). Also a decorator.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def patient_threads() -> None:
    """Let OpenMP's threads sleep soon while they wait for each other; before torch is loaded, and kept if set already.

    By default they spin for milliseconds: with one other busy process on two cores a step then took 17 s in place of
    1.3 s. After 20,000 turns asleep it takes 4 s, and alone as long as before (LOG.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def calm_allocator() -> None:
    """Give large tensors pages of their own, so that freed ones go back to the system instead of leaving holes.

    glibc raises that threshold to 32 MiB by itself; a LoRA run on a CPU then grew from 1.7 to 2.9 GB in 60 steps, with
    8 MiB it stays at 2.1 GB at the same speed. Does nothing where there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 8 << 20)


def release_memory() -> None:
    """Hand freed memory back to the system, e.g. between training and predicting in one process."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
