"""Open regular files by descriptor, inside a folder if one is given: what was checked is what is read."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, cast, overload

from sartor.base.errors import DataError
from sartor.base.i18n import tr

_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK"))
_NOFOLLOW, _DIRECTORY = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_DIRECTORY", 0)
_CAN_WALK = bool(_NOFOLLOW and _DIRECTORY) and {os.open, os.stat} <= os.supports_dir_fd
BLOCK = 1 << 18
SMALL_BYTES = 64 << 20
"""More than any registry, template or prompt has."""


class OpenFile:
    """A regular file held open: each `open()` reads the same bytes from the start, whatever happens to its path."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        self.size = os.fstat(descriptor).st_size

    @overload
    def open(self, mode: Literal["rb"]) -> BinaryIO: ...
    @overload
    def open(self, mode: Literal["r"], encoding: str | None = None, newline: str | None = None) -> TextIO: ...
    def open(self, mode: str, encoding: str | None = None, newline: str | None = None) -> BinaryIO | TextIO:
        """As `Path.open`, for reading: a stream with a position of its own, which may outlive this object."""
        binary = io.BufferedReader(_Reader(self), BLOCK)
        return cast(BinaryIO, binary) if "b" in mode else io.TextIOWrapper(binary, encoding=encoding, newline=newline)

    def read_bytes(self) -> bytes:
        """All of a small file."""
        with self.open("rb") as file:
            return file.read()

    def digest(self, kind: str = "sha256") -> str:
        """A hash of the content in lowercase hex."""
        with self.open("rb") as file:
            return hashlib.file_digest(file, kind).hexdigest()  # type: ignore[arg-type]

    def close(self) -> None:
        os.close(self.descriptor)


class _Reader(io.RawIOBase):
    def __init__(self, file: OpenFile) -> None:
        self.place = 0
        self.descriptor = os.dup(file.descriptor) if hasattr(os, "pread") else _again(file)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def readinto(self, buffer: Any) -> int:
        if hasattr(os, "pread"):
            piece = os.pread(self.descriptor, len(buffer), self.place)
        else:
            os.lseek(self.descriptor, self.place, os.SEEK_SET)
            piece = os.read(self.descriptor, len(buffer))
        buffer[: len(piece)] = piece
        self.place += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: os.fstat(self.descriptor).st_size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.place = start + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def close(self) -> None:
        if not self.closed:
            os.close(self.descriptor)
        super().close()


def _again(file: OpenFile) -> int:
    """Another descriptor of the same file where positions cannot be given to a read (Windows)."""
    descriptor = os.open(file.path, _FLAGS)
    if not os.path.samestat(os.fstat(descriptor), os.fstat(file.descriptor)):
        os.close(descriptor)
        raise _changed(file.path)
    return descriptor


@contextmanager
def open_regular(path: Path, inside: Path | None = None) -> Iterator[OpenFile]:
    """A regular file, closed afterwards; with `inside`, one that is in this folder after following links.

    Raises: DataError for a file that is missing, unreadable, outside the folder, or a pipe, device or socket, and for
    a path that changes at this moment.
    """
    try:
        file = OpenFile(path, _descriptor(path, inside))
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL character; RuntimeError: circular links
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            "Could not open the file: {reason}.", str(path)[:300], "Check the path.", reason=reason
        ) from None
    try:
        yield file
    finally:
        file.close()


def read_regular(path: Path) -> bytes:
    """The content of a small regular file. Raises: DataError as `open_regular` does, or if it is not small."""
    with open_regular(path) as file:
        if file.size > SMALL_BYTES:
            raise DataError("The file is larger than {limit} MiB.", path, "Check the path.", limit=SMALL_BYTES >> 20)
        return file.read_bytes()


def _descriptor(path: Path, inside: Path | None) -> int:
    if inside is None:
        _require_regular(path, os.stat(path))  # before opening: opening a device can have effects
        return _checked(path, os.open(path, _FLAGS))
    root, real = inside.resolve(), path.resolve()
    if not real.is_relative_to(root):
        raise DataError("The file is outside the folder.", path, tr("Choose a file in {folder}.", folder=inside))
    if _CAN_WALK:
        return _walk(path, root, real.relative_to(root).parts)
    descriptor = _descriptor(real, None)
    if path.resolve() != real or not os.path.samestat(os.fstat(descriptor), os.stat(real)):
        os.close(descriptor)
        raise _changed(path)
    return descriptor


def _walk(path: Path, root: Path, parts: tuple[str, ...]) -> int:
    """Open a resolved path part by part without following links: one that appeared since then is an error."""
    if not parts:
        raise _not_regular(path)
    folder = os.open(root, _FLAGS | _DIRECTORY)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, _FLAGS | _DIRECTORY | _NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = deeper
        _require_regular(path, os.stat(parts[-1], dir_fd=folder, follow_symlinks=False))
        return _checked(path, os.open(parts[-1], _FLAGS | _NOFOLLOW, dir_fd=folder))
    finally:
        os.close(folder)


def _checked(path: Path, descriptor: int) -> int:
    try:
        _require_regular(path, os.fstat(descriptor))
    except DataError:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise _changed(path)
    if not stat.S_ISREG(found.st_mode):
        raise _not_regular(path)


def _not_regular(path: Path) -> DataError:
    return DataError("Not a regular file.", path, "Copy its contents into a file.")


def _changed(path: Path) -> DataError:
    return DataError("The path changed while it was being opened.", path, "Run the same command again.")
