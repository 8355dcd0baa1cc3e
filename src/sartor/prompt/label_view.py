"""Shows one example as the trainer sees it, with label tokens marked: for terminal, page and JSON."""

from __future__ import annotations

import dataclasses
import html
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sartor.base import i18n
from sartor.base.i18n import tr
from sartor.base.reasons import reason_of
from sartor.base.types import Demonstration, Example, IntArray, Note, Place, Preference, Skipped, TokenSequence
from sartor.prompt.encode import Encoder
from sartor.prompt.label_spans import EncodeFailure, EncodeRequest

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

COLORS = ("#d7f5dd", "#b5e8c1")
"""Two greens that alternate between label tokens; dark text on both has a contrast above 12:1."""
TERMINAL = ("black on green", "black on bright_green")


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of the text that one token covers, or several that share a character."""

    text: str
    trained: bool
    control: bool
    tokens: int
    used: bool = True
    """False beyond `cutoff_len`."""


@dataclass(frozen=True, slots=True)
class RenderedText:
    """One rendered text in pieces; `tokens` and `label_tokens` count those within cutoff_len."""

    title: i18n.Text | str
    """Which text of the example it is; empty if it is the only one."""
    pieces: tuple[Piece, ...]
    tokens: int
    label_tokens: int

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class LabelView:
    """The rendered text of an example: one, those of the sequences it becomes, or a preference's chosen and rejected.

    Print it with rich: label tokens are green in two shades, control tokens bold, truncated text struck through.
    Without colors (a pipe, NO_COLOR) label tokens are between ⟦ and ⟧.
    """

    id: str
    template: str
    renderings: tuple[RenderedText, ...]
    skipped: Skipped | None = None
    """Why the example is skipped, if it is."""
    notes: tuple[Note, ...] = ()
    imported_from: Place | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; pieces as [text, is label, number of tokens]."""
        return {
            "id": self.id,
            "imported_from": self.imported_from and dataclasses.asdict(self.imported_from),
            "template": self.template,
            "skipped": self.skipped and {"code": self.skipped.code, "reason": str(self.skipped.reason)},
            "notes": [str(note) for note in self.notes],
            "renderings": [
                {
                    "title": str(rendering.title),
                    "text": rendering.text,
                    "tokens": rendering.tokens,
                    "label_tokens": rendering.label_tokens,
                    "pieces": [[piece.text, piece.trained, piece.tokens] for piece in rendering.pieces],
                }
                for rendering in self.renderings
            ],
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        plain = console.color_system is None or console.no_color
        for rendering in self.renderings:
            yield Text(self._headline(rendering), style="bold")
            yield _bracketed(rendering) if plain else _colored(rendering)
        if self.skipped:
            yield Text(f"{self.skipped.reason} {self.skipped.fix}", style="red")
        for note in self.notes:
            yield Text(str(note), style="dim")

    def html(self) -> str:
        """An HTML fragment with inline styles and all text escaped, for the report and the page."""
        parts = []
        for rendering in self.renderings:
            parts.append(f"<p><b>{html.escape(self._headline(rendering))}</b></p>")
            spans = "".join(_span(piece, shade) for piece, shade in _shaded(rendering))
            parts.append(
                '<pre style="white-space:pre-wrap;overflow-wrap:anywhere;color:#555;background:#fafafa;padding:.8em">'
                f"{spans}</pre>"
            )
        remarks = [f"{self.skipped.reason} {self.skipped.fix}"] if self.skipped else []
        parts += [f"<p>{html.escape(remark)}</p>" for remark in (*remarks, *map(str, self.notes))]
        return f'<div class="sartor-shown">{"".join(parts)}</div>'

    def _headline(self, rendering: RenderedText) -> str:
        values = {
            "id": f"{self.id} ({self.imported_from})" if self.imported_from else self.id,
            "template": self.template,
            "tokens": rendering.tokens,
            "learned": rendering.label_tokens,
            "share": f"{rendering.label_tokens / max(rendering.tokens, 1):.0%}",
        }
        return (f"{rendering.title}: " if rendering.title else "") + str(reason_of("show-tokens", values))


def label_view(example: Example, encoder: Encoder) -> LabelView:
    """Show an example as the encoder encodes it; a skipped row is shown with its reason.

    A row that cannot be rendered has no renderings.
    """
    outcome = encoder.sequences(example)[0]
    requests = encoder.requests(example)
    skipped = outcome if isinstance(outcome, Skipped) else None
    renderings = []
    if not isinstance(requests, EncodeFailure):
        titles = _titles(example, len(requests))
        leave_out = isinstance(example, Demonstration) and len(requests) > 1 and skipped is None
        for title, request in zip(titles, requests):
            if (rendering := _render(request, encoder, title, leave_out)) is not None:
                renderings.append(rendering)
    origin, notes = example.origin, encoder.take_notes()
    return LabelView(origin.id, encoder.template.name, tuple(renderings), skipped, notes, origin.imported_from)


def _titles(example: Example, count: int) -> tuple[i18n.Text | str, ...]:
    if isinstance(example, Preference):
        return tr("chosen"), tr("rejected")
    if count == 1:
        return ("",)
    return tuple(tr("sequence {number} of {count}", number=n, count=count) for n in range(1, count + 1))


def _render(
    request: EncodeRequest, encoder: Encoder, title: i18n.Text | str, leave_out: bool = False
) -> RenderedText | None:
    """A request's rendering, from the ids and label spans that the trainer gets and the offsets of the same tokens.

    `leave_out`: nothing of it is used if it is too long, because other sequences of the row are used.
    """
    sequence, cut = encoder.spans.encode([request])[0], encoder.spans.tokens(request)
    if isinstance(sequence, EncodeFailure) or isinstance(cut, EncodeFailure):
        return None
    ids, offsets = cut
    assert ids.tolist() == sequence.ids.tolist()
    limit = encoder.settings.cutoff_len if encoder.settings.overlong == "truncate" else len(ids) + 1
    if leave_out and limit > len(ids) > encoder.settings.cutoff_len:
        limit = 0
    labels = _is_label(sequence) if request.rendered is not None else [True] * len(ids)
    pieces = tuple(_pieces(request.text, offsets, labels, encoder.codec.is_control(ids).tolist(), limit))
    if request.rendered is None and encoder.tokenizer.eos_token:
        pieces = (*pieces, Piece(encoder.tokenizer.eos_token, True, True, 1, len(ids) < limit))
        labels.append(True)
    return RenderedText(title, pieces, min(len(labels), limit), sum(labels[1:limit]))


def _pieces(text: str, offsets: IntArray, labels: list[bool], control: list[bool], limit: int) -> Iterator[Piece]:
    """The text cut where tokens start; tokens that share a character (bytes of a Chinese one) stay together."""
    starts, stops = offsets[:, 0].tolist(), offsets[:, 1].tolist()
    first = 0
    for n in range(1, len(starts) + 1):
        if n < len(starts) and (starts[n] < stops[n - 1] or starts[n] == starts[first]):
            continue
        begin = 0 if first == 0 else starts[first]
        stop = starts[n] if n < len(starts) else len(text)
        group = slice(first, n)
        yield Piece(text[begin:stop], any(labels[group]), any(control[group]), n - first, first < limit)
        first = n


def _is_label(sequence: TokenSequence) -> list[bool]:
    marks = [False] * len(sequence)
    for start, stop in sequence.label_spans:
        marks[start:stop] = [True] * (stop - start)
    return marks


def _shaded(rendering: RenderedText) -> Iterator[tuple[Piece, int]]:
    """Pieces with a shade (0 or 1) that alternates between adjacent label tokens."""
    shade = 0
    for piece in rendering.pieces:
        shade = 1 - shade if piece.trained else 0
        yield piece, shade


def _colored(rendering: RenderedText) -> Text:
    from rich.text import Text

    text = Text()
    for piece, shade in _shaded(rendering):
        style = TERMINAL[shade] if piece.trained and piece.used else "dim"
        style += (" bold" if piece.control else "") + ("" if piece.used else " strike")
        # Show line breaks, so that those trained on are visible.
        text.append(piece.text.replace("\n", "⏎\n"), style=style)
    return text


def _bracketed(rendering: RenderedText) -> Text:
    from rich.text import Text

    groups = itertools.groupby(rendering.pieces, lambda piece: piece.trained and piece.used)
    texts = ((is_label, "".join(piece.text for piece in group)) for is_label, group in groups)
    return Text("".join(f"⟦{text}⟧" if is_label else text for is_label, text in texts))


def _span(piece: Piece, shade: int) -> str:
    style = f"background:{COLORS[shade]};color:#113;" if piece.trained and piece.used else ""
    style += "font-weight:bold;" if piece.control else ""
    style += "" if piece.used else "text-decoration:line-through;"
    text = html.escape(piece.text).replace("\n", "⏎\n")
    return f'<span style="{style}">{text}</span>' if style else text
