"""An Arrow file or stream (what `datasets` saves), read batch by batch; dates become ISO text."""

from __future__ import annotations

import base64
import mmap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from sartor.base.errors import DataError
from sartor.base.i18n import tr
from sartor.base.open_file import OpenFile
from sartor.base.types import RawRow
from sartor.data.sources import Source

BATCH = 1024
FILE_MARK = b"ARROW1"


class ArrowSource(Source):
    """The file and the stream format of Arrow; `datasets` saves the stream format."""

    name = "arrow"
    suffixes = (".arrow", ".feather")
    is_text = False
    reads_foreign_layout = True

    def rows(self, file: OpenFile, where: str, encoding: str) -> Iterator[RawRow]:
        import pyarrow as pa

        with corruption_errors(where, "Arrow"), mapped(file) as bytes_:
            if bytes_.read(len(FILE_MARK)) == FILE_MARK:
                reader = pa.ipc.open_file(bytes_)
                yield from rows_of_batches(reader.get_batch(n) for n in range(reader.num_record_batches))
            else:
                bytes_.seek(0)
                yield from rows_of_batches(pa.ipc.open_stream(bytes_))


@contextmanager
def mapped(file: OpenFile) -> Iterator[Any]:
    """The file as pyarrow reads it without copying, mapped by its descriptor."""
    import pyarrow as pa

    if not file.size:
        raise ValueError("the file is empty")
    with file.open("rb") as stream:  # the map is freed with the last batch that refers to it
        view = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    yield pa.BufferReader(pa.py_buffer(view))


def rows_of_batches(batches: Iterable[Any]) -> Iterator[RawRow]:
    """The rows of record batches; a row whose text is not valid UTF-8 has a fault."""
    number = 0
    for batch in batches:
        names = batch.schema.names
        if len(set(names)) < len(names):
            raise ValueError(f"duplicate column {next(name for name in names if names.count(name) > 1)!r}")
        for start in range(0, batch.num_rows, BATCH):
            piece = batch.slice(start, BATCH)
            try:
                values = piece.to_pylist()
            except UnicodeDecodeError:
                values = [_row(piece, index) for index in range(piece.num_rows)]
            for value in values:
                number += 1
                yield (
                    RawRow(number, None, None, fault=tr("invalid UTF-8: {error}", error=str(value)))
                    if isinstance(value, Exception)
                    else RawRow(number, None, to_json_value(value))
                )


def _row(piece: Any, index: int) -> Any:
    try:
        return piece.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        return error


def to_json_value(value: Any) -> Any:
    """A value as JSON can hold it: dates and times as ISO text, decimals and durations as text, bytes as base64."""
    if isinstance(value, dict):
        return {key: to_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(item) for item in value]
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, timedelta)):
        return str(value)
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode("ascii")}
    return value


@contextmanager
def corruption_errors(where: str, kind: str) -> Iterator[None]:
    """Turn pyarrow's errors into a DataError that names the file; `kind` is Arrow or Parquet."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, MemoryError):  # the budget, not the file, is what it exceeds
            raise
        raise DataError(
            "Could not read the {kind} file: {reason}.",
            where,
            "Write or download it again.",
            kind=kind,
            reason=reason,
        ) from None


PLUGIN = ArrowSource()
