"""Files become examples and a ledger of where every row went.

The way of a row, file by file:

1. `dataset_info.py` checks the entry in `dataset_info.json` and makes it a `DatasetSpec` (`dataset_spec.py`).
2. `load.py` (all rows) or `streaming.py` (row by row) is the entry point.
3. `dataset_files.py` finds what the entry names, checks permissions and hashes; `remote.py` reads hubs, scripts and
   the network.
4. `files.py` opens one file: `decompress.py`, then `encoding.py`, then the source for its suffix.
5. `sources/` has one file per kind of data file: bytes become `RawRow`s (JSON through `json_stream.py`).
6. `read_rows.py` turns each `RawRow` into an `Example` or a `Skipped`.
7. `formats/` has one file per way of writing a conversation as a row; `validate.py` checks its cells.
8. `mixing.py` samples and interleaves, `split.py` holds rows out.

`import_file.py` makes a dataset of a file without an entry; `csv_roundtrip.py` keeps the provenance of generated rows.
"""
