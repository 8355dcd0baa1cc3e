"""Atomic writes, durable renames and hashes of files."""

from __future__ import annotations

import contextlib
import errno
import getpass
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sartor.base.errors import RunError
from sartor.base.i18n import Text, tr


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a crash; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_open(path: Path, mode: str = "wb") -> Iterator[IO[bytes]]:
    """Open a temporary file next to `path`; on success it is fsynced and renamed to `path`, otherwise removed.

    Raises: RunError when the disk is full or read-only; the old file is left as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, tmp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        with os.fdopen(descriptor, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, tmp)
        else:
            os.chmod(tmp, 0o666 & ~_umask())
        os.replace(tmp, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Replace `path` with `content` (text as UTF-8), all or nothing. Raises: RunError on a full disk.

    Half of a surrogate pair, which UTF-8 cannot hold, is written as its escape: `\\ud83d`, as JSON does.
    """
    with atomic_open(path) as file:
        file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def disk_error(error: OSError, path: Path) -> RunError:
    """The error to show for a failed write."""
    return RunError("Could not write the file: {reason}.", path, _remedy(error), reason=error.strerror or error)


def system_error(error: OSError) -> RunError:
    """The error to show for anything else that the system refused."""
    where = error.filename if error.filename is not None else ""
    return RunError("The system refused: {reason}.", where, _remedy(error), reason=error.strerror or error)


def _remedy(error: OSError) -> Text:
    if error.errno in (errno.EACCES, errno.EPERM):
        return tr("Choose another folder, or change its owner or permissions (you are {user}).", user=_user())
    if error.errno == errno.EROFS:
        return tr("This disk cannot be written to: choose a folder on another one.")
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return tr("Check the path: a file or folder in it is missing, or one is in place of the other.")
    return tr("Free some space (or choose another folder) and run the same command again.")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else "?"


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """At a surface: what the system refuses inside is a SartorError that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        raise system_error(error) from error


def fsync_file(path: Path) -> None:
    """Flush to disk a file that another library wrote, and give it the user's usual permissions."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    usual_permissions(path)


def usual_permissions(path: Path) -> None:
    """Give a file, or every file in a folder, the permissions that the user's new files have.

    safetensors writes files that nobody else may read.
    """
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~_umask())


def sha256_file(path: Path) -> str:
    """The file's SHA-256 in lowercase hex; reads in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def made_parents(path: Path) -> Iterator[None]:
    """Make the missing parents of `path`; those that are still empty afterwards are removed again.

    Raises: RunError when one cannot be made.
    """
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        yield
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()


def move_to_trash(path: Path) -> Path:
    """Move `path` to `.trash/<name>-<n>` in the same folder; return the new path."""
    trash = path.parent / ".trash"
    trash.mkdir(parents=True, exist_ok=True)
    number = 1
    while not _move_to_new(path, target := trash / f"{path.name}-{number}"):
        number += 1
    fsync_folder(path.parent)
    return target


def _move_to_new(path: Path, target: Path) -> bool:
    """Move to a name that nobody has; False when it is taken, also by another process a moment ago."""
    try:
        target.mkdir() if path.is_dir() else target.touch(exist_ok=False)
    except FileExistsError:
        return False
    if path.is_dir() and os.name == "nt":
        target.rmdir()  # Windows replaces no folder, not even an empty one
    try:
        os.replace(path, target)
    except OSError:
        with contextlib.suppress(OSError):
            target.rmdir() if target.is_dir() else target.unlink()
        raise
    return True


def _umask() -> int:
    with contextlib.suppress(OSError):  # Linux says it; elsewhere it has to be set to be read
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0)
    os.umask(mask)
    return mask


def whole_characters(text: str) -> str:
    """Without halves of characters, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
