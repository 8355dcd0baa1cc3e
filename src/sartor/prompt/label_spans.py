"""Rendered conversations to ids and learned spans, many at once; knows no examples, lengths or settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from sartor.base.types import IntArray, TokenSequence
from sartor.prompt.layout import Layout
from sartor.prompt.template import Rendered, Template
from sartor.prompt.tokenizer import BREAK, FIRST_SECRET, ControlToken, secret_name

LabelSpans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class EncodeFailure:
    """Why a text gives no usable tokens; its code stands in the catalogue."""

    code: str
    params: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """One text to encode, and which messages' turns are learned; a document has no rendering and learns nothing yet."""

    rendered: Rendered | None
    trained: frozenset[int]
    train_on_prompt: bool
    text: str = field(default="")

    def __post_init__(self) -> None:
        """Raises: UnicodeEncodeError for half a character (a lone surrogate), which the tokenizer cannot take."""
        if self.rendered is not None:
            object.__setattr__(self, "text", self.rendered.text)
        self.text.encode("utf-8")

    @classmethod
    def document(cls, text: str) -> EncodeRequest:
        return cls(None, frozenset(), False, text)


@dataclass(frozen=True, slots=True)
class LayoutTokens:
    """What is known of a layout's ids before anything is encoded."""

    layout: Layout
    """Kept so that its identity stays its own."""
    control: tuple[tuple[ControlToken, ...], ...]
    """The control tokens that the template writes, by piece."""
    control_ids: bytes
    """All of them in order, as int32."""
    turns: Mapping[int, tuple[int, bytes, int, int]] | None
    """Message → ordinal of the control token before the turn, the ids of the header after it and their number, ordinal
    of the control token that ends the turn. None where borders need offsets."""


class SpanEncoder:
    """Encodes renderings of one template. Borders come from the template's control tokens, else from offsets."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.codec = template.codec
        self._known: dict[int, LayoutTokens] = {}

    def encode(self, jobs: Sequence[EncodeRequest]) -> list[TokenSequence | EncodeFailure]:
        """Each job's ids and learned spans, in order."""
        known = [None if job.rendered is None else self._layout_tokens(job.rendered.layout) for job in jobs]
        quick = [n for n, about in enumerate(known) if about is None or about.turns is not None]
        done: list[TokenSequence | EncodeFailure | None] = [None] * len(jobs)
        encoded = self.codec.backend.encode_batch_fast([jobs[n].text for n in quick], add_special_tokens=False)
        rows = [encoding.ids for encoding in encoded]
        stops = list(accumulate(map(len, rows), initial=0))
        flat = np.fromiter(chain.from_iterable(rows), np.int32, stops[-1])
        places = np.flatnonzero(self.codec.is_control(flat))
        found = flat[places]
        cuts = np.searchsorted(places, stops).tolist()
        for at, n in enumerate(quick):
            first, last, start, stop = cuts[at], cuts[at + 1], stops[at], stops[at + 1]
            about, job = known[n], jobs[n]
            if about is None:
                done[n] = TokenSequence(flat[start:stop], ()) if first == last else None
            elif found[first:last].tobytes() == about.control_ids:
                spans = self._between_control(flat, places[first:last].tolist(), start, about, job)
                done[n] = None if spans is None else TokenSequence(flat[start:stop], spans)
        slow = [n for n, outcome in enumerate(done) if outcome is None]
        for n, outcome in zip(slow, self._by_offsets([jobs[n] for n in slow], [known[n] for n in slow])):
            done[n] = outcome
        return done  # type: ignore[return-value]

    def _between_control(
        self, flat: IntArray, places: list[int], first: int, about: LayoutTokens, job: EncodeRequest
    ) -> LabelSpans | None:
        """The learned spans, counted from control token to control token; None where a header's ids run into a text."""
        spans = {}
        assert about.turns is not None
        for message, (before, header, length, end) in about.turns.items():
            if message in job.trained or job.train_on_prompt:
                start = places[before] + 1
                if flat[start : start + length].tobytes() != header:
                    return None
                spans[message] = start + length - first, places[end] + 1 - first
        return _chosen(spans, job)

    def tokens(self, job: EncodeRequest) -> tuple[IntArray, IntArray] | EncodeFailure:
        """A job's ids (N) and, for each, where it starts and stops in the text (N, 2), in characters."""
        about = None if job.rendered is None else self._layout_tokens(job.rendered.layout)
        return self._cut(job, about, self.codec.exact.encode(job.text, add_special_tokens=False))

    def _by_offsets(
        self, jobs: Sequence[EncodeRequest], known: Sequence[LayoutTokens | None]
    ) -> Iterator[TokenSequence | EncodeFailure]:
        """The slower way: whole texts with offsets."""
        encodings = self.codec.exact.encode_batch([job.text for job in jobs], add_special_tokens=False) if jobs else []
        for job, about, encoding in zip(jobs, known, encodings):
            cut = self._cut(job, about, encoding)
            if isinstance(cut, EncodeFailure):
                yield cut
            else:
                yield TokenSequence(cut[0], _spans_by_offsets(job, about, cut[1]) if about else ())

    def _cut(
        self, job: EncodeRequest, about: LayoutTokens | None, encoding: tokenizers.Encoding
    ) -> tuple[IntArray, IntArray] | EncodeFailure:
        """Ids and offsets; where people wrote control tokens, by the tokenizer that knows them by secret names only."""
        ids = np.asarray(encoding.ids, np.int32)
        expected = about.control_ids if about else b""
        if ids[self.codec.is_control(ids)].tobytes() == expected:
            return ids, np.asarray(encoding.offsets, np.int32).reshape(-1, 2)
        text, place = _secret_text(job, about)
        if text.count(FIRST_SECRET) != len(expected) // 4:
            return EncodeFailure("control-text", {"reason": "it holds a private-use character"})
        tokenizer, table = self.codec.secret
        encoding = tokenizer.encode(text, add_special_tokens=False)
        ids = table[np.asarray(encoding.ids, np.int32)]
        if ids[self.codec.is_control(ids)].tobytes() != expected:
            return EncodeFailure("control-text", {"reason": "the tokenizer makes a control token of plain text"})
        return ids, place[np.asarray(encoding.offsets, np.int32).reshape(-1, 2)]

    def _layout_tokens(self, layout: Layout) -> LayoutTokens:
        known = self._known.get(id(layout))
        if known is None:
            if len(self._known) >= 4096:
                self._known.clear()
            known = self._known[id(layout)] = self._tokenize_layout(layout)
        return known

    def _tokenize_layout(self, layout: Layout) -> LayoutTokens:
        control = tuple(
            _scan_broken(self.template, piece, layout.broken[number] if layout.broken else piece)
            for number, piece in enumerate(layout.pieces)
        )
        before = list(accumulate((len(found) for found in control), initial=0))
        flat = [token.id for found in control for token in found]
        turns: dict[int, tuple[int, bytes, int, int]] = {}
        for turn in layout.turns:
            (piece, offset), (last_piece, last_offset) = turn.start, turn.stop
            earlier = [n for n, token in enumerate(control[piece]) if token.stop <= offset]
            ending = [n for n, token in enumerate(control[last_piece]) if token.start < last_offset <= token.stop]
            if not earlier or not ending:
                return LayoutTokens(layout, control, np.asarray(flat, np.int32).tobytes(), None)
            ids = np.asarray(self.codec.ids(layout.pieces[piece][:offset]), np.int32)
            header = ids[np.flatnonzero(self.codec.is_control(ids))[-1] + 1 :]
            turns[turn.message] = (
                before[piece] + earlier[-1],
                header.tobytes(),
                len(header),
                before[last_piece] + ending[-1],
            )
        return LayoutTokens(layout, control, np.asarray(flat, np.int32).tobytes(), turns)


def _scan_broken(template: Template, piece: str, broken: str) -> tuple[ControlToken, ...]:
    """The control tokens that the template itself wrote into a piece."""
    if piece == broken:
        return tuple(template.codec.scan(piece))
    moved = []
    for token in template.codec.scan(broken):
        shift = broken.count(BREAK, 0, token.start)
        moved.append(ControlToken(token.start - shift, token.stop - shift, token.id, token.content))
    return tuple(moved)


def _chosen(spans: Mapping[int, tuple[int, int]], job: EncodeRequest) -> LabelSpans:
    """The turns to learn; with `prompt_too` also all before the last of them, except turns not to be learned."""
    learned = [span for message, span in spans.items() if message in job.trained]
    if not job.train_on_prompt or not learned:
        return tuple(learned)
    others = [span for message, span in spans.items() if message not in job.trained and span[0] < learned[-1][1]]
    starts = [0, *(stop for _, stop in others)]
    stops = [*(start for start, _ in others), learned[-1][1]]
    return tuple((start, stop) for start, stop in zip(starts, stops) if start < stop)


def _secret_text(job: EncodeRequest, about: LayoutTokens | None) -> tuple[str, IntArray]:
    """The rendering with the template's control tokens under their secret names, and each character's true place."""
    if job.rendered is None or about is None:
        return job.text, np.arange(len(job.text) + 1, dtype=np.int32)
    parts: list[str] = []
    places: list[npt.NDArray[Any]] = []
    position = 0

    def add(written: str, true_length: int) -> None:
        nonlocal position
        parts.append(written)
        same = len(written) == true_length
        places.append(np.arange(position, position + true_length) if same else np.full(len(written), position))
        position += true_length

    for number, piece in enumerate(about.layout.pieces):
        done = 0
        for token in about.control[number]:
            start = piece.index(token.content, token.start)
            add(piece[done:start], start - done)
            add(secret_name(token.id), len(token.content))
            done = start + len(token.content)
        add(piece[done:], len(piece) - done)
        if number < len(job.rendered.texts):
            add(job.rendered.texts[number], len(job.rendered.texts[number]))
    return "".join(parts), np.concatenate([*places, [position]]).astype(np.int32)


def _spans_by_offsets(job: EncodeRequest, about: LayoutTokens, offsets: IntArray) -> LabelSpans:
    """The learned spans from where each token starts and stops in the text; offsets (N, 2)."""
    assert job.rendered is not None
    lengths = chain.from_iterable(zip(map(len, about.layout.pieces), [*map(len, job.rendered.texts), 0]))
    base = list(accumulate(lengths, initial=0))[::2]
    spans = {}
    for turn in about.layout.turns:
        start, stop = (base[piece] + offset for piece, offset in (turn.start, turn.stop))
        # A token that holds the header's end and the answer's beginning is learned: the model must write it.
        first = int(np.searchsorted(offsets[:, 1], start, "right"))
        spans[turn.message] = first, int(np.searchsorted(offsets[:, 0], stop, "left"))
    return _chosen(spans, job)
