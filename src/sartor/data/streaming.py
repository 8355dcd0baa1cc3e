"""Datasets read a row at a time, as often as asked and shuffled in a buffer; nothing is kept of what was read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from sartor.base.errors import ConfigError
from sartor.base.files import sha256_file
from sartor.base.permissions import Permissions
from sartor.base.types import Example, Skipped
from sartor.data import load, mixing, remote
from sartor.data.dataset_info import DatasetSpec, read_registry
from sartor.data.load import SourceFile
from sartor.data.split import read_split
from sartor.data.validate import Notes

T = TypeVar("T")
INSPECTED_ROWS = 1000
"""Rows after which the columns that an entry names must have appeared."""


@dataclass(frozen=True, slots=True)
class ExampleStream:
    """Registered datasets that can be read again and again. Rows come in the order of the files, mixed as asked."""

    specs: tuple[DatasetSpec, ...]
    stage: str
    mix_strategy: str
    interleave_probs: tuple[float, ...]
    seed: int
    encoding: str | None
    permissions: Permissions
    files: tuple[SourceFile, ...]

    def rows(self, on_skipped: Callable[[Skipped], None]) -> Iterator[Example]:
        """One pass over all rows; those that cannot be used are told. Raises: DataError as `load` does."""
        parts = [partial(_examples, self, spec, on_skipped) for spec in self.specs]
        if self.mix_strategy == "concat" or len(parts) == 1:
            return (example for part in parts for example in part())
        mixed = mixing.interleave_iterators(parts, self.mix_strategy, self.interleave_probs, self.seed)
        return (example for _, example in mixed)


def open_stream(
    names: Iterable[str],
    dataset_dir: Path,
    *,
    stage: str = "sft",
    mix_strategy: str = "concat",
    interleave_probs: Sequence[float] = (),
    seed: int = 42,
    encoding: str | None = None,
    permissions: Permissions | None = None,
) -> ExampleStream:
    """Find the datasets and hash their files; no row is read yet.

    Raises: DataError as `load` does; ConfigError for what cannot be had without knowing all rows: a sample
    (`num_samples`), a slice, a saved split.
    """
    permissions = permissions or Permissions()
    specs = tuple(read_registry(dataset_dir).spec(name) for name in names)
    for spec in specs:
        where = f"dataset {spec.name!r}"
        if spec.num_samples or "[" in spec.split:
            raise ConfigError(
                "Samples and slices need all rows; a stream has none.",
                where,
                "Take num_samples and the slice out of the entry, or leave streaming out.",
            )
        if read_split(dataset_dir, spec.name):
            raise ConfigError(
                "The saved split needs all rows; a stream has none.",
                where,
                "Hold out by eval_dataset, or leave streaming out.",
            )
    files = tuple(file for spec in specs for file in _files(spec, permissions))
    return ExampleStream(specs, stage, mix_strategy, tuple(interleave_probs), seed, encoding, permissions, files)


def shuffled(rows: Iterable[T], size: int, seed: int, turn: int) -> Iterator[T]:
    """Each row once, drawn from a buffer of `size` that the next rows fill; the order depends on (seed, turn)."""
    random = np.random.default_rng((seed, turn))
    coming = iter(rows)
    buffer = list(islice(coming, size))
    for row in coming:
        place = int(random.integers(len(buffer)))
        buffer[place], row = row, buffer[place]
        yield row
    random.shuffle(buffer)
    yield from buffer


def _examples(stream: ExampleStream, spec: DatasetSpec, on_skipped: Callable[[Skipped], None]) -> Iterator[Example]:
    columns: set[str] | None = set()
    outcomes = load.read_examples(spec, stage=stream.stage, encoding=stream.encoding, permissions=stream.permissions)
    number, notes = 0, Notes()
    for number, (raw, outcome) in enumerate(outcomes, 1):
        if columns is not None and isinstance(raw.value, dict):
            columns |= raw.value.keys()
        if columns is not None and number == INSPECTED_ROWS:
            load.check_columns(spec, columns, stream.stage, notes)
            columns = None
        if isinstance(outcome, Skipped):
            on_skipped(outcome)
        else:
            yield outcome
    if columns is not None and number:
        load.check_columns(spec, columns, stream.stage, notes)


def _files(spec: DatasetSpec, permissions: Permissions) -> Iterator[SourceFile]:
    """Local files with their hashes; what lies elsewhere is known by its address."""
    place = remote.place_of(spec)
    if place:
        yield SourceFile(Path(place), hashlib.sha256(place.encode()).hexdigest(), None, None, place)
        return
    for path in load.source_files(spec, permissions):
        yield SourceFile(path, sha256_file(path), spec.encoding, None)
