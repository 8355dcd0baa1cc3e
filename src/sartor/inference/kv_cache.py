"""A key–value cache that grows in place and drops finished rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

GROWTH_TOKENS = 64
"""Positions allocated ahead; appending copies nothing until they are used."""


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """transformers' dynamic layer, its tensors views of a buffer with room for the next tokens."""

    is_compileable = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.length = 0
        b, g, t, d = key_states.shape
        self.key_room = key_states.new_empty(b, g, t + GROWTH_TOKENS, d)
        self.value_room = value_states.new_empty(b, value_states.shape[1], t + GROWTH_TOKENS, value_states.shape[3])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append key_BGTD and value_BGTD; returns all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, stop = self.length, self.length + key_states.shape[2]
        if stop > self.key_room.shape[2]:
            grow = max(GROWTH_TOKENS, self.length // 2) + key_states.shape[2]
            self.key_room = torch.cat([self.key_room, self.key_room.new_empty(*self._more(self.key_room, grow))], 2)
            self.value_room = torch.cat(
                [self.value_room, self.value_room.new_empty(*self._more(self.value_room, grow))], 2
            )
        self.key_room[:, :, start:stop] = key_states
        self.value_room[:, :, start:stop] = value_states
        self.length = stop
        self.keys, self.values = self.key_room[:, :, :stop], self.value_room[:, :, :stop]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows."""
        self.key_room, self.value_room = self.key_room[indices], self.value_room[indices]
        self.keys, self.values = self.key_room[:, :, : self.length], self.value_room[:, :, : self.length]

    def join(self, other: PreallocatedLayer) -> None:
        """Append another layer's rows to these; the shorter of the two is padded on the left."""
        length = max(self.length, other.length)
        rows = self.key_room.shape[0] + other.key_room.shape[0]
        for name in ("key_room", "value_room"):
            mine, theirs = getattr(self, name), getattr(other, name)
            room = mine.new_zeros(rows, mine.shape[1], length + GROWTH_TOKENS, mine.shape[3])
            room[: mine.shape[0], :, length - self.length : length] = mine[:, :, : self.length]
            room[mine.shape[0] :, :, length - other.length : length] = theirs[:, :, : other.length]
            setattr(self, name, room)
        self._look(length)

    def drop(self, positions: int) -> None:
        """Drop the first positions, which hold only padding."""
        self.key_room, self.value_room = self.key_room[:, :, positions:], self.value_room[:, :, positions:]
        self._look(self.length - positions)

    def _look(self, length: int) -> None:
        self.length = length
        self.keys, self.values = self.key_room[:, :, :length], self.value_room[:, :, :length]

    @staticmethod
    def _more(room: Tensor, positions: int) -> tuple[int, int, int, int]:
        return room.shape[0], room.shape[1], positions, room.shape[3]


def preallocated_cache(model: Any) -> Cache:
    """A new cache: preallocated layers, or transformers' own if the model has other kinds of layers."""

    plain = DynamicCache(config=model.config)
    if any(type(layer) is not DynamicLayer for layer in plain.layers):
        return plain
    return Cache(layers=[PreallocatedLayer() for _ in plain.layers])
