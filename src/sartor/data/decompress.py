"""Decompress gz, bz2, xz, zst and zip files into a temporary file, within a size limit."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sartor.base.errors import DataError
from sartor.base.file_budget import FileBudget
from sartor.base.open_file import OpenFile, open_regular

COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".lzma", ".zst", ".zip")
CHUNK = 1 << 20


@contextmanager
def decompressed(file: OpenFile, name: str, where: str) -> Iterator[tuple[OpenFile, str]]:
    """The decompressed file, removed afterwards, and its name without the suffix; other files are yielded as they are.

    Raises: DataError for a damaged file, one that exceeds the size limit, or an archive of several files.
    """
    if Path(name).suffix.lower() not in COMPRESSED_SUFFIXES:
        yield file, name
        return
    with tempfile.TemporaryDirectory(prefix="sartor-") as folder:
        target = Path(folder) / "data"
        try:
            inner = _unpack(file, Path(name), target, where)
        except _errors() as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DataError("No space left to decompress the file.", where, "Free space under TMPDIR.") from None
            raise DataError(
                "Could not decompress the file: {error}.",
                where,
                "Compress or download it again.",
                error=str(error),
            ) from None
        with open_regular(target) as plain:
            yield plain, inner


def _unpack(file: OpenFile, path: Path, target: Path, where: str) -> str:
    with file.open("rb") as packed, _reader(path, packed, where) as (reader, name), target.open("wb") as out:
        limit, size = FileBudget.of(file.size).decoded_bytes, 0
        while chunk := reader.read(CHUNK):
            size += len(chunk)
            if size > limit:
                raise _bomb_error(where, limit)
            out.write(chunk)
    return name


@contextmanager
def _reader(path: Path, packed: IO[bytes], where: str) -> Iterator[tuple[Any, str]]:
    kind = path.suffix.lower()
    if kind == ".zip":
        with zipfile.ZipFile(packed) as archive:
            member = _only_member(archive, where)
            with archive.open(member) as reader:
                yield reader, Path(member.filename).name
        return
    if kind == ".zst":
        yield _Zst(packed), path.stem
        return
    opener: Any = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File}.get(kind)
    with opener(fileobj=packed) if kind == ".gz" else opener(packed) if opener else lzma.LZMAFile(packed) as reader:
        yield reader, path.stem


class _Zst:
    """A reader of all frames that raises for a truncated one; zstandard's own stream ignores that silently."""

    STEP = 4096
    """Compressed bytes at a time: zst compresses zeros 30,000 times, so more would need much memory at once."""

    def __init__(self, packed: IO[bytes]) -> None:
        import zstandard

        self.packed, self.unpacker = packed, zstandard.ZstdDecompressor()
        self.frame: Any = None

    def read(self, _: int) -> bytes:
        """The next chunk; empty at the end."""
        while piece := self.packed.read(self.STEP):
            out = b""
            while piece:
                self.frame = self.frame or self.unpacker.decompressobj()
                out += self.frame.decompress(piece)
                piece = self.frame.unused_data if self.frame.eof else b""
                if self.frame.eof:
                    self.frame = None
            if out:
                return out
        if self.frame is not None:
            raise EOFError("the file ends within a frame")
        return b""


def _only_member(archive: zipfile.ZipFile, where: str) -> zipfile.ZipInfo:
    members = [info for info in archive.infolist() if not info.is_dir() and not _is_metadata(info.filename)]
    if len(members) != 1:
        raise DataError(
            "The archive contains {count} files; it must contain exactly one.",
            where,
            "Put one data file into it, or extract it into a folder.",
            count=len(members),
        )
    return members[0]


def _is_metadata(name: str) -> bool:
    return name.startswith("__MACOSX/") or Path(name).name.startswith(".")


def check_zip(file: OpenFile, where: str) -> None:
    """Decompress a file that is a zip inside (a spreadsheet) without keeping it, so that a bomb is found here.

    Raises: DataError when it exceeds the size limit or is damaged; never for a file that is not a zip.
    """
    with file.open("rb") as packed:
        if not zipfile.is_zipfile(packed):
            return
        limit, size = FileBudget.of(file.size).decoded_bytes, 0
        try:
            with zipfile.ZipFile(packed) as archive:
                for info in archive.infolist():
                    with archive.open(info) as reader:
                        while chunk := reader.read(CHUNK):
                            size += len(chunk)
                            if size > limit:
                                raise _bomb_error(where, limit)
        except _errors() as error:
            raise DataError(
                "The file is damaged: {error}.", where, "Save or download it again.", error=str(error)
            ) from None


def _bomb_error(where: str, limit: int) -> DataError:
    return DataError(
        "The file decompresses to more than {limit:,} MiB, far more than text does.",
        where,
        "If you trust it, decompress it yourself and use the decompressed file.",
        limit=limit >> 20,
    )


def _errors() -> tuple[type[Exception], ...]:
    """What the decompressors raise for damaged files."""
    import zstandard

    return (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        LookupError,  # zipfile, for a member whose name is empty
        ArithmeticError,
        struct.error,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        zstandard.ZstdError,
    )
