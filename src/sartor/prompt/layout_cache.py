"""The layouts of the structures seen lately, within a number of entries and of characters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from sartor.prompt.layout import Layout, UnsupportedTemplate

MAX_LAYOUTS, MAX_CHARACTERS = 2048, 1 << 24
ENTRY_CHARACTERS = 256
"""What an entry costs beside its texts."""


class LayoutCache:
    """Least recently used first out. A layout holds the tools and calls of its conversation, which may be long."""

    def __init__(self, max_layouts: int = MAX_LAYOUTS, max_characters: int = MAX_CHARACTERS) -> None:
        self.max_layouts, self.max_characters = max_layouts, max_characters
        self.characters = 0
        self._kept: OrderedDict[Hashable, tuple[Layout | UnsupportedTemplate, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Layout | UnsupportedTemplate | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, layout: Layout | UnsupportedTemplate, key_characters: int) -> None:
        """Keep a layout, unless it alone is longer than everything that may be kept."""
        size = ENTRY_CHARACTERS + key_characters
        if isinstance(layout, Layout):
            size += sum(map(len, layout.pieces)) + sum(map(len, layout.broken)) + 64 * len(layout.slots)
        if size > self.max_characters or key in self._kept:
            return
        self._kept[key] = layout, size
        self.characters += size
        while len(self._kept) > self.max_layouts or self.characters > self.max_characters:
            self.characters -= self._kept.popitem(last=False)[1][1]
