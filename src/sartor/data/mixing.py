"""Which rows of a dataset or of several are used, and in which order: slices, seeded samples, interleaving."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import TypeVar

import numpy as np

from sartor.base.errors import ConfigError, DataError

T = TypeVar("T")
SLICE = re.compile(r"[\w.-]+(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def parse_slice(split: str, total: int, where: str) -> range:
    """The rows (from 0) that `train[:30%]` asks of a file; the split's name means nothing there.

    Percentages are rounded to the nearest row, as `datasets` does. Raises: DataError for anything else.
    """
    found = SLICE.fullmatch(split.replace(" ", ""))
    if not found:
        raise DataError(f"The split {split!r} is not understood.", where, "Write train, train[:30%] or train[100:200].")
    start, stop = (_place(bound, total) for bound in found.groups())
    return range(total)[start:stop]


def _place(bound: str | None, total: int) -> int | None:
    if bound is None:
        return None
    return round(int(bound[:-1]) * total / 100) if bound.endswith("%") else int(bound)


def sample(rows: list[T], count: int, seed: int) -> list[T]:
    """A seeded sample in the order of the file; every row first, and some again, when more are asked than there are."""
    if count == len(rows) or not rows:
        return rows
    random = np.random.default_rng(seed)
    chosen = random.choice(len(rows), size=min(count, len(rows)), replace=False)
    again = random.choice(len(rows), size=max(0, count - len(rows)), replace=True)
    return [rows[int(i)] for i in sorted((*chosen, *again))]


def interleave(parts: Sequence[Sequence[T]], strategy: str, probs: Sequence[float], seed: int) -> list[tuple[int, T]]:
    """(part, row) in turn, or drawn by `probs`: `interleave_under` ends with the first part that is used up,
    `interleave_over` when all are, the shorter ones being begun anew.

    Raises: ConfigError for probabilities that do not fit; DataError for a part without rows.
    """
    return list(interleave_iterators([part.__iter__ for part in parts], strategy, probs, seed))


def interleave_iterators(
    parts: Sequence[Callable[[], Iterator[T]]], strategy: str, probs: Sequence[float], seed: int
) -> Iterator[tuple[int, T]]:
    """The same for parts that are read a row at a time, and read again where they are begun anew."""
    running = [part() for part in parts]
    following: list[T | None] = [next(rows, None) for rows in running]
    if None in following:
        raise DataError("A dataset has no usable row to mix.", "mix_strategy", "Take it out, or mend its rows.")
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
            f"interleave_probs {list(map(float, probs))} do not fit {count} datasets.",
            "interleave_probs",
            "Give each dataset one above 0; together they are 1.",
        )
    random = np.random.default_rng(seed)
    shares = np.asarray(probs, dtype=float) / sum(probs)
    while True:
        yield from map(int, random.choice(count, size=4096, p=shares))
