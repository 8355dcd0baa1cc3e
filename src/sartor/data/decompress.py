"""Packed files (gz, bz2, xz, zst, zip) to plain ones beside which nothing stays; a bomb is stopped by its size."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sartor.base.errors import DataError

COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".lzma", ".zst", ".zip")
SMALL = 256 << 20
"""Bytes that any packed file may become."""
MAX_RATIO = 200
"""Beyond `SMALL`, no file may become so many times as large: text packs 3 to 20 times, a bomb 1,000 times and more."""
CHUNK = 1 << 20


@contextmanager
def decompressed(path: Path, where: str | None = None) -> Iterator[tuple[Path, str]]:
    """The unpacked file and its name without the packing's ending; removed afterwards. Others are given as they lie.

    Raises: DataError for a damaged file, one that grows beyond measure, or an archive of several files.
    """
    where = where or str(path)
    if path.suffix.lower() not in COMPRESSED_SUFFIXES:
        yield path, path.name
        return
    with tempfile.TemporaryDirectory(prefix="sartor-") as folder:
        try:
            name = _unpack(path, Path(folder) / "data", where)
        except _errors() as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DataError("There is no room to unpack the file.", where, "Free space under TMPDIR.") from None
            raise DataError(f"The file cannot be unpacked: {error}.", where, "Pack or download it anew.") from None
        yield Path(folder) / "data", name


def _unpack(path: Path, target: Path, where: str) -> str:
    with path.open("rb") as packed, _reader(path, packed, where) as (reader, name), target.open("wb") as out:
        most, size = _max_bytes(path), 0
        while chunk := reader.read(CHUNK):
            size += len(chunk)
            if size > most:
                raise _bomb_error(where, most)
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
    """A reader of all frames that raises at a truncated one, which zstandard's own stream passes over in silence."""

    STEP = 4096
    """Packed bytes at a time: zst packs zeros 30,000 times, so that more would be much memory at once."""

    def __init__(self, packed: IO[bytes]) -> None:
        import zstandard

        self.packed, self.unpacker = packed, zstandard.ZstdDecompressor()
        self.frame: Any = None

    def read(self, _: int) -> bytes:
        """The next piece; nothing at the end."""
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
            f"The archive holds {len(members)} files.", where, "Put one data file into it, or unpack it into a folder."
        )
    return members[0]


def _is_metadata(name: str) -> bool:
    return name.startswith("__MACOSX/") or Path(name).name.startswith(".")


def measure_zip(path: Path, where: str) -> None:
    """For a file that is a zip inside (a spreadsheet): unpack it into nothing, so that a bomb is met here.

    Raises: DataError when it would grow beyond measure or is damaged; nothing for a file that is no zip.
    """
    if not zipfile.is_zipfile(path):
        return
    most, size = _max_bytes(path), 0
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as reader:
                    while chunk := reader.read(CHUNK):
                        size += len(chunk)
                        if size > most:
                            raise _bomb_error(where, most)
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"The file is damaged: {error}.", where, "Save or download it anew.") from None


def _max_bytes(path: Path) -> int:
    return max(SMALL, MAX_RATIO * path.stat().st_size)


def _bomb_error(where: str, most: int) -> DataError:
    return DataError(
        f"The file unpacks to more than {most >> 20:,} MiB, far more than text does.",
        where,
        "If you trust it, unpack it yourself and name the unpacked file.",
    )


def _errors() -> tuple[type[Exception], ...]:
    """What the unpackers raise at damaged files."""
    import zstandard

    return (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        zstandard.ZstdError,
    )
