"""A Parquet file, read batch by batch; dates become ISO text and decimals their digits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sartor.base.types import RawRow
from sartor.data.sources import arrow

SUFFIXES = (".parquet", ".pq")
TEXT = False


def rows(path: Path, where: str, encoding: str | None = None) -> Iterator[RawRow]:
    """Each row with its number from 1. Raises: DataError for a damaged file."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with arrow.corruption_errors(where, "Parquet"), pa.memory_map(str(path)) as file:
        table = ParquetFile(file)
        yield from arrow.rows_of_batches(table.iter_batches(batch_size=arrow.BATCH))
