"""Which rows are used and in which order: slices, seeded samples, interleaved datasets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import TypeVar

import numpy as np

from sartor.base.errors import ConfigError, DataError
from sartor.base.i18n import Text

T = TypeVar("T")
MAX_REPEATS = 100
"""Times that `num_samples` may exceed the rows there are: each repeat is encoded and kept."""
SLICE = re.compile(r"[\w.-]+(?:\[(-?\d{1,18}%?)?:(-?\d{1,18}%?)?\])?")


def parse_slice(split: str, total: int, where: str | Text) -> range:
    """The row indices (from 0) that `train[:30%]` selects from a file; the split's name is ignored.

    Percentages are rounded to the nearest row, as `datasets` does. Raises: DataError for anything else.
    """
    found = SLICE.fullmatch(split.replace(" ", ""))
    if not found:
        raise DataError("Invalid split {split!r}.", where, "Write train, train[:30%] or train[100:200].", split=split)
    start, stop = (_place(bound, total) for bound in found.groups())
    return range(total)[start:stop]


def _place(bound: str | None, total: int) -> int | None:
    if bound is None:
        return None
    return round(int(bound[:-1]) * total / 100) if bound.endswith("%") else int(bound)


def sample(rows: list[T], count: int, seed: int) -> list[T]:
    """A seeded sample in the order of the file; beyond the number of rows, all of them and some repeated.

    Raises: DataError for more than `MAX_REPEATS` times the rows there are.
    """
    if count == len(rows) or not rows:
        return rows
    if count > MAX_REPEATS * len(rows):
        raise DataError(
            "num_samples is {count:,}, more than {times} times the {rows:,} usable rows.",
            "num_samples",
            "Write at most {limit:,}, or train longer: num_train_epochs repeats rows without copying them.",
            count=count,
            times=MAX_REPEATS,
            rows=len(rows),
            limit=MAX_REPEATS * len(rows),
        )
    random = np.random.default_rng(seed)
    chosen = random.choice(len(rows), size=min(count, len(rows)), replace=False)
    again = random.choice(len(rows), size=max(0, count - len(rows)), replace=True)
    return [rows[int(i)] for i in np.sort(np.concatenate((chosen, again)))]


def interleave(parts: Sequence[Sequence[T]], strategy: str, probs: Sequence[float], seed: int) -> list[tuple[int, T]]:
    """(part, row) in turn, or drawn by `probs`: `interleave_under` ends when the first part is used up,
    `interleave_over` when all are; the shorter ones are repeated.

    Raises: ConfigError for probabilities that do not fit; DataError for a part without rows.
    """
    return list(interleave_iterators([part.__iter__ for part in parts], strategy, probs, seed))


def interleave_iterators(
    parts: Sequence[Callable[[], Iterator[T]]], strategy: str, probs: Sequence[float], seed: int
) -> Iterator[tuple[int, T]]:
    """As `interleave`, for parts that are read one row at a time and opened again to be repeated."""
    running = [part() for part in parts]
    following: list[T | None] = [next(rows, None) for rows in running]
    if None in following:
        raise DataError("A dataset to be mixed has no usable row.", "mix_strategy", "Remove it, or fix its rows.")
    unused = set(range(len(parts)))
    for part in _draw_sources(len(parts), probs, seed):
        row = following[part]
        assert row is not None
        yield part, row
        following[part] = next(running[part], None)
        if following[part] is None:
            unused.discard(part)
            if not unused or strategy == "interleave_under":
                return
            running[part] = parts[part]()
            following[part] = next(running[part], None)


def _draw_sources(count: int, probs: Sequence[float], seed: int) -> Iterator[int]:
    if not probs:
        yield from cycle(range(count))
    if len(probs) != count or min(probs) <= 0 or abs(sum(probs) - 1) > 1e-6:
        raise ConfigError(
            "interleave_probs {probs} does not fit {count} datasets.",
            "interleave_probs",
            "Give one probability above 0 for each dataset; they must sum to 1.",
            probs=str(list(map(float, probs))),
            count=count,
        )
    random = np.random.default_rng(seed)
    shares = np.asarray(probs, dtype=float) / sum(probs)
    while True:
        yield from map(int, random.choice(count, size=4096, p=shares))
