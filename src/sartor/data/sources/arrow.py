"""An Arrow file or stream (what `datasets` saves), read batch by batch; dates become ISO text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError
from sartor.base.types import RawRow

SUFFIXES = (".arrow", ".feather")
TEXT = False
BATCH = 1024
FILE_MARK = b"ARROW1"


def rows(path: Path, where: str, encoding: str | None = None) -> Iterator[RawRow]:
    """Each row with its number from 1. Raises: DataError for a damaged file."""
    import pyarrow as pa

    with corruption_errors(where, "Arrow"), pa.memory_map(str(path)) as file:
        if file.read(len(FILE_MARK)) == FILE_MARK:
            reader = pa.ipc.open_file(file)
            yield from rows_of_batches(reader.get_batch(n) for n in range(reader.num_record_batches))
        else:
            file.seek(0)
            yield from rows_of_batches(pa.ipc.open_stream(file))


def rows_of_batches(batches: Iterable[Any]) -> Iterator[RawRow]:
    """The rows of record batches; a row whose text is no UTF-8 is a fault of that row."""
    number = 0
    for batch in batches:
        names = batch.schema.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the column {twice!r} stands twice")
        for start in range(0, batch.num_rows, BATCH):
            piece = batch.slice(start, BATCH)
            try:
                values = piece.to_pylist()
            except UnicodeDecodeError:
                values = [_row(piece, index) for index in range(piece.num_rows)]
            for value in values:
                number += 1
                yield (
                    RawRow(number, None, None, fault=str(value))
                    if isinstance(value, Exception)
                    else RawRow(number, None, plain(value))
                )


def _row(piece: Any, index: int) -> Any:
    try:
        return piece.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        return error


def plain(value: Any) -> Any:
    """A value as JSON would hold it: dates and times as ISO text, decimals and durations as text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, timedelta)):
        return str(value)
    return value


@contextmanager
def corruption_errors(where: str, kind: str) -> Iterator[None]:
    """Turns pyarrow's errors into one that names the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"The {kind} file cannot be read: {reason}.", where, "Write or download it anew.") from None
