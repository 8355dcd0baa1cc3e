"""Datasets that are read one row at a time, again and again, and shuffled in a buffer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from sartor.base.errors import ConfigError
from sartor.base.open_file import open_regular
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.settings import DataSettings
from sartor.base.types import Example, Skipped
from sartor.data import mixing, remote
from sartor.data.access import dataset_place, folder_of
from sartor.data.dataset_files import local_files
from sartor.data.dataset_info import read_registry
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.load import SourceFile
from sartor.data.read_rows import check_columns, read_examples
from sartor.data.split import read_split
from sartor.data.validate import Notes

T = TypeVar("T")
INSPECTED_ROWS = 1000
"""Rows within which the columns that an entry names must have appeared."""


@dataclass(frozen=True, slots=True)
class ExampleStream:
    """Registered datasets that can be read repeatedly. Rows come in the order of the files, mixed as `data` says."""

    specs: tuple[DatasetSpec, ...]
    data: DataSettings
    stage: str
    seed: int
    permissions: Permissions
    files: tuple[SourceFile, ...]

    def rows(self, on_skipped: Callable[[Skipped], None]) -> Iterator[Example]:
        """One pass over all rows; `on_skipped` gets those that cannot be used. Raises: DataError as `load` does."""
        parts = [partial(_examples, self, spec, on_skipped) for spec in self.specs]
        if self.data.mix_strategy == "concat" or len(parts) == 1:
            return (example for part in parts for example in part())
        mixed = mixing.interleave_iterators(parts, self.data.mix_strategy, self.data.interleave_probs, self.seed)
        return (example for _, example in mixed)


def open_stream(
    data: DataSettings, *, stage: str = "sft", seed: int = 42, permissions: Permissions | None = None
) -> ExampleStream:
    """Find the datasets in `data.dataset` and hash their files; no row is read yet.

    Raises: DataError as `load` does; ConfigError for what needs all rows: a sample (`num_samples`), a slice, a saved
    split.
    """
    permissions = permissions or NOTHING_ALLOWED
    folder = Path(data.dataset_dir)
    specs = tuple(read_registry(folder).spec(name) for name in data.dataset)
    for spec in specs:
        if spec.num_samples or "[" in spec.split:
            raise ConfigError(
                "num_samples and slices are not supported with streaming.",
                dataset_place(spec),
                "Remove num_samples and the slice from the entry, or turn streaming off.",
            )
        if read_split(folder, spec.name):
            raise ConfigError(
                "A saved split is not supported with streaming.",
                dataset_place(spec),
                "Hold out rows with eval_dataset, or turn streaming off.",
            )
    files = tuple(file for spec in specs for file in _files(spec, permissions))
    return ExampleStream(specs, data, stage, seed, permissions, files)


def shuffled(rows: Iterable[T], size: int, seed: int, turn: int) -> Iterator[T]:
    """Each row once, drawn from a buffer of `size` that the next rows refill; the order depends on (seed, turn)."""
    generator = np.random.default_rng((seed, turn))
    incoming = iter(rows)
    buffer = list(islice(incoming, size))
    for row in incoming:
        place = int(generator.integers(len(buffer)))
        buffer[place], row = row, buffer[place]
        yield row
    generator.shuffle(buffer)
    yield from buffer


def _examples(stream: ExampleStream, spec: DatasetSpec, on_skipped: Callable[[Skipped], None]) -> Iterator[Example]:
    columns: set[str] | None = set()
    outcomes = read_examples(spec, stage=stream.stage, encoding=stream.data.encoding, permissions=stream.permissions)
    number, notes = 0, Notes()
    for number, (raw, outcome) in enumerate(outcomes, 1):
        if columns is not None and isinstance(raw.value, dict):
            columns |= raw.value.keys()
        if columns is not None and number == INSPECTED_ROWS:
            check_columns(spec, columns, stream.stage, notes)
            columns = None
        if isinstance(outcome, Skipped):
            on_skipped(outcome)
        else:
            yield outcome
    if columns is not None and number:
        check_columns(spec, columns, stream.stage, notes)


def _files(spec: DatasetSpec, permissions: Permissions) -> Iterator[SourceFile]:
    """Local files with the hashes of their contents; anything else with the hash of its address."""
    place = remote.place_of(spec)
    if place:
        yield SourceFile(Path(place), hashlib.sha256(place.encode()).hexdigest(), None, None)
        return
    for path in local_files(spec, permissions):
        with open_regular(path, folder_of(spec, permissions)) as file:
            yield SourceFile(path, file.digest(), spec.encoding, None)
