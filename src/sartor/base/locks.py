"""Locks that the operating system keeps for as long as the process lives; the text in a lock file only informs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sartor.base.errors import RunError
from sartor.base.files import disk_error
from sartor.base.i18n import tr
from sartor.base.process import ProcessIdentity

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

RETRY_S = 0.01
BRIEFLY_S = 2.0
"""Seconds for which somebody who only asks whether a lock is held may keep others from taking it."""
REGISTRY_WAIT_S = 60.0
"""Seconds to wait for another process that writes the same registry: a write takes milliseconds."""
NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What file systems without locks answer (Lustre without `flock`, some FUSE mounts)."""


@contextlib.contextmanager
def file_lock(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Exclusive access to a folder or file, by a lock on `<path>.lock` that ends with this process, however it ends.

    Where the file system has no locks, the file `<path>.lock.owner` stands for one; it names its process, and is
    replaced once that process has ended.

    Raises: RunError (code `locked`) when another process holds it for `wait_s` more seconds; RunError when the folder
    cannot be written to.
    """
    lock = lock_file(path)
    give_up = time.monotonic() + wait_s
    in_transit = time.monotonic() + BRIEFLY_S
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            held = _take(lock)
        except OSError as error:
            raise disk_error(error, path) from error
        if held is not None:
            break
        now = time.monotonic()
        if now >= give_up and (now >= in_transit or is_locked(path)):
            raise _locked(lock, path)
        time.sleep(RETRY_S)
    try:
        yield
    finally:
        held.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds `file_lock(path)` now, on this machine or on another one that shares the folder."""
    lock = lock_file(path)
    if (owner := _owner_file(lock)).exists():
        return _is_owned(owner)
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not _lock(descriptor, shared=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


@dataclass(frozen=True, slots=True)
class _Held:
    """A lock of this process; `descriptor` is None where a file stands for the lock."""

    file: Path
    descriptor: int | None
    pid: int

    def release(self) -> None:
        """Remove the file, then unlock. A forked child that ends leaves its parent's lock alone."""
        if os.getpid() != self.pid:
            return
        with contextlib.suppress(OSError):
            if self.descriptor is None or _is_file_at(self.descriptor, self.file):
                self.file.unlink()
        if self.descriptor is not None:
            _descriptors.discard(self.descriptor)
            os.close(self.descriptor)


_descriptors: set[int] = set()


def _close_inherited() -> None:
    """A child that outlives a killed parent must not keep its locks."""
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


def _take(lock: Path) -> _Held | None:
    """The lock, or None when another process has it, or removed the file in between. Raises: OSError."""
    if _owner_file(lock).exists() and _is_owned(_owner_file(lock)):
        return None
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
    held = None
    try:
        if not _lock(descriptor) or not _is_file_at(descriptor, lock):
            return None
        text = json.dumps(ProcessIdentity.of().to_json()).encode()
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
            os.ftruncate(descriptor, 0)
            os.write(descriptor, text)
        _descriptors.add(descriptor)
        held = _Held(lock, descriptor, os.getpid())
        return held
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        return _own(lock)
    finally:
        if held is None:
            os.close(descriptor)


def _lock(descriptor: int, shared: bool = False) -> bool:
    """Whether the lock is this descriptor's now. Raises: OSError where the file system has no locks."""
    try:
        if sys.platform == "win32":  # a byte far behind the text, which others may read meanwhile
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):
        return False


def _is_file_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still is the one at the path: its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _owner_file(lock: Path) -> Path:
    return lock.with_name(lock.name + ".owner")


def _own(lock: Path) -> _Held | None:
    """Create the owner's file with its text at once, by a hard link. Raises: OSError."""
    owner = _owner_file(lock)
    descriptor, name = tempfile.mkstemp(dir=lock.parent, prefix=f".{lock.name}.")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(ProcessIdentity.of().to_json(), file)
        while True:
            try:
                os.link(new, owner)
            except FileExistsError:
                if _is_owned(owner) or not _set_aside(owner):
                    return None
                continue
            with contextlib.suppress(OSError):
                lock.unlink()
            return _Held(owner, None, os.getpid())
    finally:
        new.unlink(missing_ok=True)


def _set_aside(owner: Path) -> bool:
    """Remove the file of an ended process; False when somebody else's was caught, which is put back."""
    aside = owner.with_name(f".{owner.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        os.rename(owner, aside)
        if _is_owned(aside):
            os.link(aside, owner)
            return False
        return True
    except OSError:
        return False
    finally:
        aside.unlink(missing_ok=True)


def _is_owned(owner: Path) -> bool:
    """Whether the process may be alive: of another machine or container nobody can tell from here."""
    holder = _holder(owner)
    return owner.exists() if holder is None else holder.is_alive() is not False


def _holder(file: Path) -> ProcessIdentity | None:
    with contextlib.suppress(OSError, ValueError):
        return ProcessIdentity.from_json(json.loads(file.read_text(encoding="utf-8")))
    return None


def _locked(lock: Path, path: Path) -> RunError:
    """The error that names the holder."""
    owner = _owner_file(lock)
    holder = _holder(owner if owner.exists() else lock)
    here = ProcessIdentity.of()
    if holder is None:
        what = tr("In use by another process.")
    elif holder.host == here.host:
        what = tr("In use by process {pid}.", pid=holder.pid)
    else:
        what = tr("In use by process {pid} on {host}.", pid=holder.pid, host=holder.host)
    fix = tr("Wait for it to finish, or stop it.")
    if owner.exists():
        fix = tr(
            "Wait for it to finish, or stop it. This file system has no locks: if that process is gone, delete {file}.",
            file=owner,
        )
    return RunError(what, path, fix, code="locked")
