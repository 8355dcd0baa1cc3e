"""A stream of encoded rows, accessed by position: a thread encodes rows ahead of use, and used rows are discarded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import overload

from sartor.base.errors import DataError
from sartor.base.types import Encoded, Example, Skipped, TokenSequence
from sartor.prompt.encode import Encoder

PREFETCH_ROWS = 4096
"""Maximum number of encoded rows ahead of the last position that was read."""


class RowStream(Sequence[Encoded]):
    """Position → row. Read positions in increasing order: rows more than `behind` positions back are discarded.

    `examples(epoch)` yields the data of one epoch in its order; the next epoch follows directly. The same data gives
    the same row at each position, so a resumed run continues with the row it would have had: all rows before it are
    read and encoded again.
    """

    def __init__(
        self,
        examples: Callable[[int], Iterable[Example]],
        encoder: Encoder,
        total: int,
        *,
        behind: int,
        on_skipped: Callable[[Skipped], None],
        ahead: int = PREFETCH_ROWS,
    ) -> None:
        self._examples, self._encoder, self._total = examples, encoder, total
        self._behind, self._ahead, self._on_skipped = behind, ahead, on_skipped
        self._rows: dict[int, Encoded] = {}
        self._made = self._oldest = 0
        self._last_read = -1
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._uses: dict[str, int] = {}

    def __len__(self) -> int:
        return self._total

    @overload
    def __getitem__(self, position: int) -> Encoded: ...
    @overload
    def __getitem__(self, position: slice) -> list[Encoded]: ...
    def __getitem__(self, position: int | slice) -> Encoded | list[Encoded]:
        """Wait for the row. Raises: any error from reading or encoding; IndexError for a discarded row."""
        if isinstance(position, slice):
            return [self[place] for place in range(*position.indices(self._total))]
        if not 0 <= position < self._total:
            raise IndexError(position)
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._make, name="encoding", daemon=True)
                self._thread.start()
            if position > self._last_read:
                self._last_read = position
                self._discard()
                self._changed.notify_all()
            if position < self._oldest:
                raise IndexError(f"row {position} of the stream was discarded")
            self._changed.wait_for(lambda: self._made > position or self._error is not None or self._closed)
            if self._made > position:
                return self._rows[position]
            raise self._error or RuntimeError("the stream is closed")

    def close(self) -> None:
        """Stop the thread; rows already encoded stay readable."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def release_before(self, stop: int) -> dict[str, int]:
        """Row id → how often it is begun before position `stop`, which must not be a discarded position."""
        with self._changed:
            found = dict(self._uses)
            for position, row in self._rows.items():
                if position >= stop and row.origin is not None and _begins_row(row):
                    found[row.origin.id] -= 1
        return {row: times for row, times in found.items() if times}

    def _discard(self) -> None:
        for position in range(self._oldest, min(self._last_read - self._behind, self._made)):
            self._rows.pop(position, None)
        self._oldest = max(self._oldest, self._last_read - self._behind)

    def _make(self) -> None:
        try:
            for row in self._encoded():
                with self._changed:
                    self._changed.wait_for(lambda: self._made - self._last_read <= self._ahead or self._closed)
                    if self._closed:
                        return
                    if self._made >= self._oldest:
                        self._rows[self._made] = row
                    if row.origin is not None and _begins_row(row):
                        self._uses[row.origin.id] = self._uses.get(row.origin.id, 0) + 1
                    self._made += 1
                    self._changed.notify_all()
                    if self._made >= self._total:
                        return
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _encoded(self) -> Iterator[Encoded]:
        for epoch in count():
            any_row = False
            for outcome in self._encoder.stream(self._examples(epoch)):
                if not isinstance(outcome, Skipped):
                    any_row = True
                    yield outcome
                elif epoch == 0:
                    self._on_skipped(outcome)
            if not any_row:
                raise DataError("No row of the stream is usable.", "dataset", "Run `sartor check`.")


def _begins_row(encoded: Encoded) -> bool:
    """Whether it is the first, or only, sequence of its row: the others are no further use of it."""
    return not isinstance(encoded, TokenSequence) or encoded.part == 0
