"""A Parquet file, read batch by batch; dates become ISO text and decimals their digits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sartor.base.types import RawRow
from sartor.data.sources import Source, arrow


class ParquetSource(Source):
    """Apache Parquet, without loading the whole file."""

    name = "parquet"
    suffixes = (".parquet", ".pq")
    is_text = False

    def rows(self, path: Path, where: str, encoding: str) -> Iterator[RawRow]:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        with arrow.corruption_errors(where, "Parquet"), pa.memory_map(str(path)) as file:
            table = ParquetFile(file)
            yield from arrow.rows_of_batches(table.iter_batches(batch_size=arrow.BATCH))


PLUGIN = ParquetSource()
