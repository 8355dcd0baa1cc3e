r"""Encodes rendered conversations, many at once, as token ids and label spans.

The whole rendered text is tokenized in one go, so the ids are those that any other program gets. Label spans are then
found by counting control tokens: which control tokens a layout has, and between which of them a turn lies, is known
before any row is encoded. For example ChatML, where `S` is <|im_start|> and `E` is <|im_end|>:

    text    S user \n Hi E \n S assistant \n Yo E \n
    index   0 1    2  3  4 5  6 7         8  9  10 11
    turn                                     ^^^^^ label span (9, 11)

The turn starts after the third control token (index 6) and the header `assistant \n` (2 ids), and stops after the
fourth control token. If the header's ids merge with the text, or a text contains the string of a control token, the
slower way is taken: tokenize with offsets, and compare the offsets with the character positions of the turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

from sartor.base.i18n import tr
from sartor.base.types import IntArray, TokenSequence
from sartor.prompt.layout import Layout, Rendered
from sartor.prompt.template import Template
from sartor.prompt.tokenizer import BREAK, FIRST_SECRET, ControlToken, secret_name

LabelSpans = tuple[tuple[int, int], ...]
MAX_LAYOUTS = 4096
"""Layouts whose tokens are kept."""


@dataclass(frozen=True, slots=True)
class EncodeFailure:
    """Why a text has no usable tokens: a code of `base/reasons.py` and its params."""

    code: str
    params: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """One text to encode, and the messages whose turns are trained on; a document has no rendering."""

    rendered: Rendered | None
    trained: frozenset[int]
    train_on_prompt: bool
    text: str = field(default="")
    learned_before: int = 0
    """With `train_on_prompt`: what stands before this message was learned in an earlier sequence of the row."""

    def __post_init__(self) -> None:
        """Raises: UnicodeEncodeError for a lone surrogate, which the tokenizer cannot encode."""
        if self.rendered is not None:
            object.__setattr__(self, "text", self.rendered.text)
        self.text.encode("utf-8")

    @classmethod
    def document(cls, text: str) -> EncodeRequest:
        return cls(None, frozenset(), False, text)


@dataclass(frozen=True, slots=True)
class LayoutTokens:
    """What a layout says about the token ids of all its conversations."""

    layout: Layout
    """Kept because `SpanEncoder` looks it up by `id(layout)`, which must not be reused."""
    control: tuple[tuple[ControlToken, ...], ...]
    """The control tokens that the template writes, per piece."""
    control_ids: bytes
    """All of them in order, as int32."""
    turns: Mapping[int, TurnTokens] | None
    """Message → its turn; None if a turn is not between control tokens and its borders need offsets."""

    def quick(self, request: EncodeRequest) -> bool:
        """Whether counting control tokens is enough for a request."""
        return self.turns is not None and not (request.train_on_prompt and any(t.fault for t in self.layout.turns))


class TurnTokens(NamedTuple):
    """Where a turn lies between the control tokens of its conversation."""

    before: int
    """Number of the control token before the turn."""
    header: bytes
    """The ids (int32) between that control token and the turn."""
    header_length: int
    """How many ids that is."""
    end: int
    """Number of the control token that ends the turn."""


class SpanEncoder:
    """Encodes renderings of one template; keeps what it found out about their layouts."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.codec = template.codec
        self._layouts: dict[int, LayoutTokens] = {}

    def encode(self, requests: Sequence[EncodeRequest]) -> list[TokenSequence | EncodeFailure]:
        """The ids and label spans of each request, in order."""
        layouts = [self._layout_of(request) for request in requests]
        quick = [n for n, layout in enumerate(layouts) if layout is None or layout.quick(requests[n])]
        done: list[TokenSequence | EncodeFailure | None] = [None] * len(requests)
        encoded = self.codec.backend.encode_batch_fast([requests[n].text for n in quick], add_special_tokens=False)
        rows = [encoding.ids for encoding in encoded]
        stops = list(accumulate(map(len, rows), initial=0))
        flat = np.fromiter(chain.from_iterable(rows), np.int32, stops[-1])
        places = np.flatnonzero(self.codec.is_control(flat))
        found = flat[places]
        cuts = np.searchsorted(places, stops).tolist()
        for at, n in enumerate(quick):
            first, last, start, stop = cuts[at], cuts[at + 1], stops[at], stops[at + 1]
            layout, request = layouts[n], requests[n]
            if layout is None:
                done[n] = TokenSequence(flat[start:stop], ()) if first == last else None
            elif found[first:last].tobytes() == layout.control_ids:
                spans = self._between_control(flat, places[first:last].tolist(), start, layout, request)
                done[n] = None if spans is None else TokenSequence(flat[start:stop], spans)
        slow = [n for n, outcome in enumerate(done) if outcome is None]
        for n, outcome in zip(slow, self._by_offsets([requests[n] for n in slow], [layouts[n] for n in slow])):
            done[n] = outcome
        return done  # type: ignore[return-value]

    def _between_control(
        self, flat: IntArray, places: list[int], first: int, layout: LayoutTokens, request: EncodeRequest
    ) -> LabelSpans | None:
        """Label spans by counting control tokens; None if the ids of a header merge with the text."""
        spans = {}
        assert layout.turns is not None
        for message, (before, header, length, end) in layout.turns.items():
            if message in request.trained or request.train_on_prompt:
                start = places[before] + 1
                if flat[start : start + length].tobytes() != header:
                    return None
                spans[message] = start + length - first, places[end] + 1 - first
        return _chosen(spans, request)

    def tokens(self, request: EncodeRequest) -> tuple[IntArray, IntArray] | EncodeFailure:
        """The ids of a request (N), and where each starts and stops in the text (N, 2), in characters."""
        return self._cut(
            request, self._layout_of(request), self.codec.exact.encode(request.text, add_special_tokens=False)
        )

    def _by_offsets(
        self, requests: Sequence[EncodeRequest], layouts: Sequence[LayoutTokens | None]
    ) -> Iterator[TokenSequence | EncodeFailure]:
        """The slower way: tokenize with offsets."""
        encodings = (
            self.codec.exact.encode_batch([request.text for request in requests], add_special_tokens=False)
            if requests
            else []
        )
        for request, layout, encoding in zip(requests, layouts, encodings):
            cut = self._cut(request, layout, encoding)
            if isinstance(cut, EncodeFailure):
                yield cut
            else:
                yield TokenSequence(cut[0], _spans_by_offsets(request, layout, cut[1]) if layout else ())

    def _cut(
        self, request: EncodeRequest, layout: LayoutTokens | None, encoding: tokenizers.Encoding
    ) -> tuple[IntArray, IntArray] | EncodeFailure:
        """Ids and offsets; if user text contains control-token strings, by the tokenizer with secret names."""
        ids = np.asarray(encoding.ids, np.int32)
        expected = layout.control_ids if layout else b""
        if ids[self.codec.is_control(ids)].tobytes() == expected:
            return ids, np.asarray(encoding.offsets, np.int32).reshape(-1, 2)
        text, place = _secret_text(request, layout)
        if text.count(FIRST_SECRET) != len(expected) // 4:
            return EncodeFailure("control-text", {"reason": tr("it contains a reserved private-use character")})
        tokenizer, table = self.codec.secret
        encoding = tokenizer.encode(text, add_special_tokens=False)
        ids = table[np.asarray(encoding.ids, np.int32)]
        if ids[self.codec.is_control(ids)].tobytes() != expected:
            return EncodeFailure("control-text", {"reason": tr("the tokenizer turns plain text into a control token")})
        return ids, place[np.asarray(encoding.offsets, np.int32).reshape(-1, 2)]

    def _layout_of(self, request: EncodeRequest) -> LayoutTokens | None:
        return None if request.rendered is None else self._layout_tokens(request.rendered.layout)

    def _layout_tokens(self, layout: Layout) -> LayoutTokens:
        tokens = self._layouts.get(id(layout))
        if tokens is None:
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            tokens = self._layouts[id(layout)] = self._tokenize_layout(layout)
        return tokens

    def _tokenize_layout(self, layout: Layout) -> LayoutTokens:
        control = tuple(
            _scan_broken(self.template, piece, layout.broken[number] if layout.broken else piece)
            for number, piece in enumerate(layout.pieces)
        )
        before = list(accumulate((len(found) for found in control), initial=0))
        flat = [token.id for found in control for token in found]
        turns: dict[int, TurnTokens] = {}
        for turn in (turn for turn in layout.turns if turn.fault is None):
            (piece, offset), (last_piece, last_offset) = turn.start, turn.stop
            earlier = [n for n, token in enumerate(control[piece]) if token.stop <= offset]
            ending = [n for n, token in enumerate(control[last_piece]) if token.start < last_offset <= token.stop]
            if not earlier or not ending:
                return LayoutTokens(layout, control, np.asarray(flat, np.int32).tobytes(), None)
            ids = np.asarray(self.codec.ids(layout.pieces[piece][:offset]), np.int32)
            header = ids[np.flatnonzero(self.codec.is_control(ids))[-1] + 1 :]
            turns[turn.message] = TurnTokens(
                before[piece] + earlier[-1],
                header.tobytes(),
                len(header),
                before[last_piece] + ending[-1],
            )
        return LayoutTokens(layout, control, np.asarray(flat, np.int32).tobytes(), turns)


def _scan_broken(template: Template, piece: str, broken: str) -> tuple[ControlToken, ...]:
    """The control tokens that the template itself wrote into a piece, not tools or calls."""
    if piece == broken:
        return tuple(template.codec.scan(piece))
    moved = []
    for token in template.codec.scan(broken):
        shift = broken.count(BREAK, 0, token.start)
        moved.append(ControlToken(token.start - shift, token.stop - shift, token.id, token.content))
    return tuple(moved)


def _chosen(spans: Mapping[int, tuple[int, int]], request: EncodeRequest) -> LabelSpans:
    """The spans of the trained turns; with `train_on_prompt` everything up to the last one but the other turns, and but
    what an earlier sequence of the row has learned."""
    trained = [span for message, span in spans.items() if message in request.trained]
    if not request.train_on_prompt or not trained:
        return tuple(trained)
    others = [span for message, span in spans.items() if message not in request.trained and span[0] < trained[-1][1]]
    new = max((stop for message, (_, stop) in spans.items() if message < request.learned_before), default=0)
    starts = [new, *(max(new, stop) for _, stop in others)]
    stops = [*(start for start, _ in others), trained[-1][1]]
    earlier = (span for span in trained if span[1] <= new)
    return (*earlier, *((start, stop) for start, stop in zip(starts, stops) if start < stop))


def _secret_text(request: EncodeRequest, layout: LayoutTokens | None) -> tuple[str, IntArray]:
    """The rendering with secret names for the template's control tokens, and each character's original position."""
    if request.rendered is None or layout is None:
        return request.text, np.arange(len(request.text) + 1, dtype=np.int32)
    parts: list[str] = []
    places: list[npt.NDArray[Any]] = []
    position = 0

    def add(written: str, true_length: int) -> None:
        nonlocal position
        parts.append(written)
        same = len(written) == true_length
        places.append(np.arange(position, position + true_length) if same else np.full(len(written), position))
        position += true_length

    for number, piece in enumerate(layout.layout.pieces):
        done = 0
        for token in layout.control[number]:
            start = piece.index(token.content, token.start)
            add(piece[done:start], start - done)
            add(secret_name(token.id), len(token.content))
            done = start + len(token.content)
        add(piece[done:], len(piece) - done)
        if number < len(request.rendered.texts):
            add(request.rendered.texts[number], len(request.rendered.texts[number]))
    return "".join(parts), np.concatenate([*places, [position]]).astype(np.int32)


def _spans_by_offsets(request: EncodeRequest, layout: LayoutTokens, offsets: IntArray) -> LabelSpans:
    """Label spans from the start and stop of each token in the text; offsets (N, 2)."""
    assert request.rendered is not None
    lengths = chain.from_iterable(zip(map(len, layout.layout.pieces), [*map(len, request.rendered.texts), 0]))
    base = list(accumulate(lengths, initial=0))[::2]
    spans = {}
    for turn in layout.layout.turns:
        start, stop = (base[piece] + offset for piece, offset in (turn.start, turn.stop))
        # A token that spans the end of the header and the start of the answer is a label: the model must generate it.
        first = int(np.searchsorted(offsets[:, 1], start, "right"))
        spans[turn.message] = first, int(np.searchsorted(offsets[:, 0], stop, "left"))
    return _chosen(spans, request)
