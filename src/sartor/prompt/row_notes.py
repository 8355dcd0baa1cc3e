"""Counts what people should know about rows that are encoded: as notes, which skip no row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sartor.base.types import Note, Origin, TokenSequence
from sartor.prompt.label_spans import EncodeFailure, EncodeRequest

MAX_NAMED = 3
"""Rows that a note names."""


class RowNotes:
    """The notes on the rows encoded since `take` was called last."""

    def __init__(self, template: str) -> None:
        self.template = template
        self._clear()

    def _clear(self) -> None:
        self._codes: Counter[str] = Counter()
        self._rows = self._sequences = self._tokens = self._repeated = self._overlong = 0
        self._overlong_rows: dict[str, None] = {}

    def rendered(self, requests: Sequence[EncodeRequest]) -> None:
        """Count what the rendering of a row did to it, once however many sequences it has."""
        found: set[str] = set()
        for request in requests:
            if request.rendered is None:
                continue
            found.update(note.code for note in request.rendered.notes)
            if request.rendered.left_out and not request.trained.isdisjoint(request.rendered.left_out):
                found.add("reasoning-left-out")
            for turn in request.rendered.layout.turns:
                if not turn.exact and turn.message in request.trained:
                    found.add("prompt-differs")
        if found:
            self._codes.update(found)

    def split(self, usable: Sequence[TokenSequence], overlong: Sequence[EncodeFailure], origin: Origin) -> None:
        """Count a conversation that became several sequences, some of them too long."""
        self._rows += 1
        self._sequences += len(usable)
        self._tokens += sum(len(sequence) for sequence in usable)
        self._repeated += sum(sequence.prompt_tokens for sequence in usable[:-1])
        if overlong:
            self._overlong += len(overlong)
            self._overlong_rows[origin.id] = None

    def take(self) -> tuple[Note, ...]:
        """The notes so far; counting starts again."""
        notes = [Note(code, {"template": self.template}, count) for code, count in self._codes.items()]
        if self._rows:
            values = {
                "rows": self._rows,
                "sequences": self._sequences,
                "repeated": self._repeated,
                "share": f"{self._repeated / self._tokens:.0%}",
            }
            notes.append(Note("history-split", {"template": self.template, **values}))
        if self._overlong:
            names = [*self._overlong_rows][:MAX_NAMED]
            more = "" if len(names) == len(self._overlong_rows) else ", …"
            values = {"sequences": self._overlong, "rows": len(self._overlong_rows), "names": ", ".join(names) + more}
            notes.append(Note("overlong-part", values))
        self._clear()
        return tuple(notes)
