"""Counting what two sequences share: n-grams with clipped counts, sets of n-grams, longest common subsequence.

Items are interned to small integers first; all four BLEU orders come out of one sort of packed 4-grams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq

_BITS = 15
"""Four items of 15 bits and the side they come from fill 61 of 64 bits."""
_LARGEST = (1 << _BITS) - 1

IdArray = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Overlap:
    """For orders 1–4: how many n-grams the prediction has, the reference has, and both have (clipped)."""

    predicted: tuple[int, int, int, int]
    referenced: tuple[int, int, int, int]
    shared: tuple[int, int, int, int]


def overlap(prediction: Sequence[str], reference: Sequence[str]) -> Overlap:
    """Clipped n-gram counts of two sequences of words or characters (a text counts as its characters)."""
    predicted, referenced = (tuple(max(0, len(s) - n) for n in range(4)) for s in (prediction, reference))
    if not prediction or not reference:
        shared = (0, 0, 0, 0)
    elif isinstance(prediction, str) and isinstance(reference, str):
        shared = _shared(*_interned_characters(prediction, reference))
    else:
        shared = _shared(*interned(prediction, reference))
    return Overlap(predicted, referenced, shared)  # type: ignore[arg-type]


def interned(one: Sequence[Hashable], other: Sequence[Hashable]) -> tuple[IdArray, IdArray]:
    """Both sequences as numbers from 1, the same item the same number."""
    number = {item: index for index, item in enumerate({*one, *other}, 1)}
    look = number.__getitem__
    return (
        np.fromiter(map(look, one), np.uint32, len(one)),
        np.fromiter(map(look, other), np.uint32, len(other)),
    )


def shared_bigram_sets(one: IdArray, other: IdArray) -> tuple[int, int, int]:
    """Distinct 2-grams of each, and of both."""
    keys = np.concatenate([_bigrams(one) << np.uint64(1) | np.uint64(1), _bigrams(other) << np.uint64(1)])
    if not len(keys):
        return 0, 0, 0
    keys.sort()
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    of_one = int((keys & np.uint64(1)).sum())
    keys >>= np.uint64(1)
    return of_one, len(keys) - of_one, int((keys[1:] == keys[:-1]).sum())


def common_subsequence(one: IdArray, other: IdArray) -> int:
    """The length of the longest common subsequence."""
    return int(LCSseq.similarity(one.tolist(), other.tolist()))


def _bigrams(ids: IdArray) -> npt.NDArray[np.uint64]:
    wide = ids.astype(np.uint64)
    return wide[:-1] << np.uint64(32) | wide[1:]


_NUMBER = np.zeros(1 << 16, np.uint32)


def _interned_characters(one: str, other: str) -> tuple[IdArray, IdArray]:
    codes = np.frombuffer((one + other).encode("utf-32-le", "surrogatepass"), np.uint32)
    known = np.unique(codes)
    if known[-1] < len(_NUMBER):
        _NUMBER[known] = np.arange(1, len(known) + 1)
        numbers = _NUMBER[codes]
    else:
        numbers = (np.searchsorted(known, codes) + 1).astype(np.uint32)
    return numbers[: len(one)], numbers[len(one) :]


def _shared(one: IdArray, other: IdArray) -> tuple[int, int, int, int]:
    if max(int(one.max()), int(other.max())) > _LARGEST:
        return _shared_by_counting(one, other)
    keys = np.concatenate([_packed(one) << np.uint64(1) | np.uint64(1), _packed(other) << np.uint64(1)])
    keys.sort()
    of_one = np.concatenate([[0], np.cumsum(keys & np.uint64(1), dtype=np.int64)])
    shared = []
    for order in (1, 2, 3, 4):
        grams = keys >> np.uint64(1 + _BITS * (4 - order))
        edges = np.concatenate([[0], np.flatnonzero(grams[1:] != grams[:-1]) + 1, [len(grams)]])
        ones = np.diff(of_one[edges])
        both = np.minimum(ones, np.diff(edges) - ones)
        both[(grams[edges[:-1]] & np.uint64(_LARGEST)) == 0] = 0  # cut off by the end of the text
        shared.append(int(both.sum()))
    return shared[0], shared[1], shared[2], shared[3]


def _packed(ids: IdArray) -> npt.NDArray[np.uint64]:
    """The 4-gram that starts at each item, the first item highest; 0 after the end."""
    wide = np.zeros(len(ids) + 3, np.uint64)
    wide[: len(ids)] = ids
    packed = wide[:-3] << np.uint64(_BITS) | wide[1:-2]
    packed = packed << np.uint64(_BITS) | wide[2:-1]
    return packed << np.uint64(_BITS) | wide[3:]


def _shared_by_counting(one: IdArray, other: IdArray) -> tuple[int, int, int, int]:
    """For more than 32,767 distinct items in one pair."""
    a, b = one.tolist(), other.tolist()
    first, second, third, fourth = (
        (Counter(zip(*(a[i:] for i in range(n)))) & Counter(zip(*(b[i:] for i in range(n))))).total()
        for n in (1, 2, 3, 4)
    )
    return first, second, third, fourth
