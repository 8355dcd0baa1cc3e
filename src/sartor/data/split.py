"""Which rows are learned and which are held out: seeded, and equal rows always on one side; writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sartor.base.errors import ConfigError
from sartor.base.types import Example


@dataclass(frozen=True, slots=True)
class Split:
    """Both parts in the order of the data; ids are `example.origin.id`."""

    learned: list[Example]
    held_out: list[Example]


def split(examples: Sequence[Example], val_size: float, seed: int) -> Split:
    """Hold out a fraction (below 1) or a count of the rows, drawn from `seed`; a row drawn twice stays on one side.

    Raises: ConfigError when nothing would be left to learn.
    """
    if not val_size:
        return Split(list(examples), [])
    ids = list(dict.fromkeys(example.origin.id for example in examples))
    count = round(val_size) if val_size >= 1 else max(1, round(val_size * len(ids)))
    if count >= len(ids):
        raise ConfigError(
            f"val_size {val_size:g} holds out all {len(ids)} rows.", "val_size", "Leave rows to learn from."
        )
    chosen = np.random.default_rng(seed).permutation(len(ids))[:count]
    held_out = {ids[int(i)] for i in chosen}
    return Split(
        [example for example in examples if example.origin.id not in held_out],
        [example for example in examples if example.origin.id in held_out],
    )
