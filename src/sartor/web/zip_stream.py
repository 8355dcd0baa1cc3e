"""Streams a folder as one ZIP file, without a temporary file and with one block in memory at a time."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK_BYTES = 1 << 20


class _Pipe(io.RawIOBase):
    """The file that ZipFile writes to; emptied after each block."""

    def __init__(self) -> None:
        self.held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        self.held += block
        return len(block)

    def take(self) -> bytes:
        held, self.held = bytes(self.held), bytearray()
        return held


def zipped(folder: Path) -> Iterator[bytes]:
    """All files of the folder (no links) under its name, uncompressed: weights do not compress."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if not file.is_file() or file.is_symlink():
                continue
            inner = f"{folder.name}/{file.relative_to(folder).as_posix()}"
            entry = zipfile.ZipInfo.from_file(file, inner, strict_timestamps=False)
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while block := source.read(BLOCK_BYTES):
                    target.write(block)
                    yield pipe.take()
    yield pipe.take()
