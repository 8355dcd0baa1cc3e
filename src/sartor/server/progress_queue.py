"""What a batcher tells one response, kept small while its client does not read."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

from sartor.inference.requests import Progress


class ProgressQueue(asyncio.Queue[tuple[int, Progress]]):
    """Every progress holds the whole text so far: of those that wait, only a choice's newest keeps its text.

    A client that reads nothing would else hold the square of its answer.
    """

    def _init(self, maxsize: int) -> None:
        self._line: deque[list[int | Progress]] = deque()
        self._newest: dict[int, list[int | Progress]] = {}

    def qsize(self) -> int:
        return len(self._line)

    def empty(self) -> bool:
        return not self._line

    def _put(self, item: tuple[int, Progress]) -> None:
        index, progress = item
        if (waiting := self._newest.get(index)) is not None and isinstance(before := waiting[1], Progress):
            if before.token is None and before.answer is None and before.error is None:
                waiting[1] = progress
                return
            if before.answer is None:
                waiting[1] = replace(before, text="")
        entry: list[int | Progress] = [index, progress]
        self._newest[index] = entry
        self._line.append(entry)

    def _get(self) -> tuple[int, Progress]:
        entry = self._line.popleft()
        index, progress = entry
        if self._newest.get(index) is entry:  # type: ignore[arg-type]
            del self._newest[index]  # type: ignore[arg-type]
        return index, progress  # type: ignore[return-value]
