"""Batches: shuffles rows by (seed, epoch) into global batches, and cuts these into micro-batches by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sartor.base.types import IGNORE_INDEX, Pair, TokenSequence

Lengths: TypeAlias = "Sequence[int] | Mapping[int, int]"


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch, right-padded. No attention mask: in a causal model real tokens never see later padding.

    `ids_BT` and `positions_BT` are int64; `labels_BT` is −100 for tokens that are not trained on, and not shifted.
    In packed rows the positions restart at 0, by which transformers separates the examples of a row.
    """

    ids_BT: Tensor
    labels_BT: Tensor
    positions_BT: Tensor
    rows: tuple[int, ...]
    """The rows of the batch, as indices into the list that it was cut from."""
    lengths_B: Tensor | None = None
    """Number of real tokens per row (int64); None for packed rows."""
    good_B: Tensor | None = None
    """kto: whether the answer of each row is rated good (bool)."""
    kl: Tensor | None = None
    """kto: z₀, the KL divergence from the reference over the global batch (nats, a scalar)."""

    @property
    def label_tokens(self) -> int:
        """Number of labels that are predicted: all except those of first tokens."""
        return int((self.labels_BT[:, 1:] != IGNORE_INDEX).sum())

    def to(self, device: torch.device | str) -> Batch:
        moved: dict[str, Any] = {
            name: value.to(device) for name in self.__slots__ if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **moved)


def epoch_order(row_count: int, seed: int, epoch: int) -> list[int]:
    """A permutation of the rows that depends only on (seed, epoch)."""
    return [int(i) for i in np.random.default_rng((seed, epoch)).permutation(row_count)]


def global_batches(rows: int, size: int, seed: int, epoch: int, *, in_order: bool = False) -> list[list[int]]:
    """The rows of each optimizer step of an epoch: `size` random ones (in order for a stream)."""
    order = list(range(rows)) if in_order else epoch_order(rows, seed, epoch)
    return [order[start : start + size] for start in range(0, rows, size)]


def micro_batches(rows: Sequence[int], lengths: Lengths, max_rows: int, max_tokens: int) -> list[list[int]]:
    """Cut one global batch: longest rows first, at most `max_rows` rows and `max_tokens` padded tokens each.

    Rows are sorted only inside a global batch, so each optimizer step still sees a random sample.
    """
    cut: list[list[int]] = []
    for row in sorted(rows, key=lambda r: (-lengths[r], r)):
        longest = lengths[cut[-1][0]] if cut else 0
        if cut and len(cut[-1]) < max_rows and longest * (len(cut[-1]) + 1) <= max_tokens:
            cut[-1].append(row)
        else:
            cut.append([row])
    return cut


def packed_batches(rows: Sequence[int], lengths: Lengths, max_tokens: int) -> list[list[int]]:
    """Cut one global batch into packs of at most `max_tokens` tokens (first fit, longest first)."""
    packs: list[list[int]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda r: (-lengths[r], r)):
        for number, free in enumerate(room):
            if lengths[row] <= free:
                packs[number].append(row)
                room[number] -= lengths[row]
                break
        else:
            packs.append([row])
            room.append(max_tokens - lengths[row])
    return packs


def collate(sequences: Sequence[TokenSequence], rows: Sequence[int], pad_id: int) -> Batch:
    """One padded row per example."""
    longest = max(len(sequences[row]) for row in rows)
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    labels = np.full((len(rows), longest), IGNORE_INDEX, dtype=np.int64)
    for line, row in enumerate(rows):
        ids[line, : len(sequences[row])] = sequences[row].ids
        labels[line, : len(sequences[row])] = sequences[row].labels
    positions = np.broadcast_to(np.arange(longest), ids.shape).copy()
    lengths = torch.tensor([len(sequences[row]) for row in rows])
    return Batch(torch.from_numpy(ids), torch.from_numpy(labels), torch.from_numpy(positions), tuple(rows), lengths)


def collate_pairs(pairs: Sequence[Pair], rows: Sequence[int], pad_id: int) -> Batch:
    """2·n padded rows: the n chosen answers, then the n rejected ones in the same order."""
    both = [pairs[row].chosen for row in rows] + [pairs[row].rejected for row in rows]
    return replace(collate(both, range(len(both)), pad_id), rows=tuple(rows))


def pair_batches(
    pairs: Sequence[Pair], chosen: Sequence[int], max_rows: int, max_tokens: int, pad_id: int
) -> list[Batch]:
    """One global batch of pairs; a pair counts as one row, and as twice the tokens of its longer answer."""
    lengths = {row: 2 * max(len(pairs[row].chosen), len(pairs[row].rejected)) for row in chosen}
    return [collate_pairs(pairs, part, pad_id) for part in micro_batches(chosen, lengths, max_rows, max_tokens)]


def collate_packs(sequences: Sequence[TokenSequence], packs: Sequence[Sequence[int]], pad_id: int) -> Batch:
    """One row per pack: concatenated examples, positions restarting; the first token of an example is never a label."""
    longest = max(sum(len(sequences[row]) for row in pack) for pack in packs)
    ids = np.full((len(packs), longest), pad_id, dtype=np.int64)
    labels = np.full((len(packs), longest), IGNORE_INDEX, dtype=np.int64)
    positions = np.zeros((len(packs), longest), dtype=np.int64)
    for line, pack in enumerate(packs):
        start = 0
        for row in pack:
            end = start + len(sequences[row])
            ids[line, start:end], labels[line, start:end] = sequences[row].ids, sequences[row].labels
            labels[line, start] = IGNORE_INDEX
            positions[line, start:end] = np.arange(end - start)
            start = end
        positions[line, start:] = np.arange(longest - start)  # padding is an example of its own
    rows = tuple(row for pack in packs for row in pack)
    return Batch(torch.from_numpy(ids), torch.from_numpy(labels), torch.from_numpy(positions), rows)


def pack_batches(
    sequences: Sequence[TokenSequence], chosen: Sequence[int], pack: int, max_tokens: int, pad_id: int
) -> list[Batch]:
    """One global batch as rows of at most `pack` packed tokens; a micro-batch holds at most `max_tokens` of them."""
    packs = packed_batches(chosen, {row: len(sequences[row]) for row in chosen}, min(pack, max_tokens))
    at_once = max(1, max_tokens // max(1, min(pack, max_tokens)))
    return [collate_packs(sequences, packs[i : i + at_once], pad_id) for i in range(0, len(packs), at_once)]
