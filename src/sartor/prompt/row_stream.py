"""Rows without end, by their position: a thread reads, shuffles and encodes them a little ahead; old ones are gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import overload

from sartor.base.errors import DataError
from sartor.base.types import Encoded, Example, Skipped
from sartor.prompt.encode import Encoder

PREFETCH_ROWS = 4096
"""Encoded rows that wait to be learned, at most."""


class RowStream(Sequence[Encoded]):
    """Position → row; asked for in growing order, give or take `behind`, for rows further back are forgotten.

    `examples(turn)` is one pass over the data, in the order of that turn; the next begins where it ends. The same
    passes give the same row at each position, so a run that goes on asks for its next position and gets the row it
    would have had: what stands before it is read and encoded again.
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
        self._wanted = -1
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
        """Waits until the row is there. Raises: what reading or encoding raised; IndexError for one that is gone."""
        if isinstance(position, slice):
            return [self[place] for place in range(*position.indices(self._total))]
        if not 0 <= position < self._total:
            raise IndexError(position)
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._make, name="encoding", daemon=True)
                self._thread.start()
            if position > self._wanted:
                self._wanted = position
                self._forget()
                self._changed.notify_all()
            if position < self._oldest:
                raise IndexError(f"row {position} of the stream is forgotten")
            self._changed.wait_for(lambda: self._made > position or self._error is not None or self._closed)
            if self._made > position:
                return self._rows[position]
            raise self._error or RuntimeError("the stream is closed")

    def close(self) -> None:
        """End the thread; rows that are there stay."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def release_before(self, stop: int) -> dict[str, int]:
        """Row's id → at how many positions before `stop` it stands; `stop` is not behind what is forgotten."""
        with self._changed:
            found = dict(self._uses)
            for position, row in self._rows.items():
                if position >= stop and row.origin is not None:
                    found[row.origin.id] -= 1
        return {row: times for row, times in found.items() if times}

    def _forget(self) -> None:
        for position in range(self._oldest, min(self._wanted - self._behind, self._made)):
            self._rows.pop(position, None)
        self._oldest = max(self._oldest, self._wanted - self._behind)

    def _make(self) -> None:
        try:
            for row in self._encoded():
                with self._changed:
                    self._changed.wait_for(lambda: self._made - self._wanted <= self._ahead or self._closed)
                    if self._closed:
                        return
                    if self._made >= self._oldest:
                        self._rows[self._made] = row
                    if row.origin is not None:
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
        for turn in count():
            some = False
            for outcome in self._encoder.stream(self._examples(turn)):
                if not isinstance(outcome, Skipped):
                    some = True
                    yield outcome
                elif turn == 0:
                    self._on_skipped(outcome)
            if not some:
                raise DataError("No row of the stream can be used.", "dataset", "See `sartor check`.")
