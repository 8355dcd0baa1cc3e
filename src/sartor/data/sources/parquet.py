"""A Parquet file, read batch by batch; dates become ISO text and decimals their digits."""

from __future__ import annotations

from collections.abc import Iterator

from sartor.base.open_file import OpenFile
from sartor.base.types import RawRow
from sartor.data.sources import Source, arrow


class ParquetSource(Source):
    """Apache Parquet, without loading the whole file."""

    name = "parquet"
    suffixes = (".parquet", ".pq")
    is_text = False
    reads_foreign_layout = True

    def rows(self, file: OpenFile, where: str, encoding: str) -> Iterator[RawRow]:
        from pyarrow.parquet import ParquetFile

        with arrow.corruption_errors(where, "Parquet"), arrow.mapped(file) as bytes_:
            table = ParquetFile(bytes_)
            yield from arrow.rows_of_batches(table.iter_batches(batch_size=arrow.BATCH))


PLUGIN = ParquetSource()
