"""One example as the trainer sees it, its learned tokens marked: for terminal, page and JSON; decides no labels."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sartor.base.reasons import reason_of
from sartor.base.types import Example, IntArray, Note, Preference, Skipped, TokenSequence
from sartor.prompt.encode import Encoder
from sartor.prompt.label_spans import EncodeFailure, EncodeRequest

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

COLORS = ("#d7f5dd", "#b5e8c1")
"""The two greens that learned tokens take in turn; dark text on both has a contrast above 12:1."""
TERMINAL = ("black on green", "black on bright_green")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the text that one token covers, or several that share a character."""

    text: str
    trained: bool
    control: bool
    tokens: int
    used: bool = True
    """False beyond `cutoff_len`."""


@dataclass(frozen=True, slots=True)
class RenderedText:
    """One rendered text, cut into pieces; joined they are the text. Counts are tokens, of those that are used."""

    title: str
    pieces: tuple[Piece, ...]
    tokens: int
    label_tokens: int

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class LabelView:
    """An example drawn: one text, or the chosen and the rejected one of a preference."""

    id: str
    template: str
    renderings: tuple[RenderedText, ...]
    skipped: Skipped | None = None
    """Why the example is not used, where it is not."""
    notes: tuple[Note, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; pieces as [text, learned, tokens]."""
        return {
            "id": self.id,
            "template": self.template,
            "skipped": self.skipped and {"code": self.skipped.code, "reason": str(self.skipped.reason)},
            "notes": [str(note) for note in self.notes],
            "renderings": [
                {
                    "title": drawing.title,
                    "text": drawing.text,
                    "tokens": drawing.tokens,
                    "label_tokens": drawing.label_tokens,
                    "pieces": [[piece.text, piece.trained, piece.tokens] for piece in drawing.pieces],
                }
                for drawing in self.renderings
            ],
        }

    def rich(self) -> LabelView:
        """For a terminal: learned tokens on green in two shades, control tokens bold, what is cut struck through.

        Without colours (a pipe, NO_COLOR) what is learned stands between ⟦ and ⟧.
        """
        return self

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        plain = console.color_system is None or console.no_color
        for drawing in self.renderings:
            yield Text(self._headline(drawing), style="bold")
            yield _bracketed(drawing) if plain else _colored(drawing)
        if self.skipped:
            yield Text(f"{self.skipped.reason} {self.skipped.fix}", style="red")
        for note in self.notes:
            yield Text(str(note), style="dim")

    def html(self) -> str:
        """For report and page: a fragment with its styles in it, all text escaped."""
        parts = []
        for drawing in self.renderings:
            parts.append(f"<p><b>{html.escape(self._headline(drawing))}</b></p>")
            spans = "".join(_span(piece, shade) for piece, shade in _shaded(drawing))
            parts.append(
                '<pre style="white-space:pre-wrap;overflow-wrap:anywhere;color:#555;background:#fafafa;padding:.8em">'
                f"{spans}</pre>"
            )
        remarks = [f"{self.skipped.reason} {self.skipped.fix}"] if self.skipped else []
        parts += [f"<p>{html.escape(remark)}</p>" for remark in (*remarks, *map(str, self.notes))]
        return f'<div class="sartor-shown">{"".join(parts)}</div>'

    def _headline(self, drawing: RenderedText) -> str:
        values = {
            "id": self.id,
            "template": self.template,
            "tokens": drawing.tokens,
            "learned": drawing.label_tokens,
            "share": f"{drawing.label_tokens / max(drawing.tokens, 1):.0%}",
        }
        return (f"{drawing.title}: " if drawing.title else "") + str(reason_of("show-tokens", values))


def label_view(example: Example, encoder: Encoder) -> LabelView:
    """An example as the encoder makes it, by the same code; a row that is skipped is drawn with its reason.

    Raises: PromptError never; a row that cannot be rendered has no drawing.
    """
    outcome = encoder.encode(example)
    jobs = encoder.requests(example)
    titles = ("chosen", "rejected") if isinstance(example, Preference) else ("",)
    skipped = outcome if isinstance(outcome, Skipped) else None
    drawings = []
    if not isinstance(jobs, EncodeFailure):
        for title, job in zip(titles, jobs):
            if (drawing := _render(job, encoder, title)) is not None:
                drawings.append(drawing)
    return LabelView(example.origin.id, encoder.template.name, tuple(drawings), skipped, encoder.take_notes())


def _render(job: EncodeRequest, encoder: Encoder, title: str) -> RenderedText | None:
    """A job's drawing, from the ids and spans that the trainer gets and the offsets of the same tokens."""
    sequence, cut = encoder.spans.encode([job])[0], encoder.spans.tokens(job)
    if isinstance(sequence, EncodeFailure) or isinstance(cut, EncodeFailure):
        return None
    ids, offsets = cut
    assert ids.tolist() == sequence.ids.tolist()
    limit = encoder.settings.cutoff_len if encoder.settings.overlong == "truncate" else len(ids) + 1
    labels = _is_label(sequence) if job.rendered is not None else [True] * len(ids)
    pieces = tuple(_pieces(job.text, offsets, labels, encoder.codec.is_control(ids).tolist(), limit))
    if job.rendered is None and encoder.tokenizer.eos_token:
        pieces = (*pieces, Piece(encoder.tokenizer.eos_token, True, True, 1, len(ids) < limit))
        labels.append(True)
    return RenderedText(title, pieces, min(len(labels), limit), sum(labels[1:limit]))


def _pieces(text: str, offsets: IntArray, labels: list[bool], control: list[bool], limit: int) -> Iterator[Piece]:
    """The text cut where tokens begin; tokens that share a character (parts of one Chinese sign) stay together."""
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


def _shaded(drawing: RenderedText) -> Iterator[tuple[Piece, int]]:
    """Pieces with the shade (0 or 1) that tells neighbouring learned ones apart."""
    shade = 0
    for piece in drawing.pieces:
        shade = 1 - shade if piece.trained else 0
        yield piece, shade


def _colored(drawing: RenderedText) -> Text:
    from rich.text import Text

    text = Text()
    for piece, shade in _shaded(drawing):
        style = TERMINAL[shade] if piece.trained and piece.used else "dim"
        style += (" bold" if piece.control else "") + ("" if piece.used else " strike")
        # A line break is drawn, or a learned one could not be seen.
        text.append(piece.text.replace("\n", "⏎\n"), style=style)
    return text


def _bracketed(drawing: RenderedText) -> Text:
    from rich.text import Text

    groups = itertools.groupby(drawing.pieces, lambda piece: piece.trained and piece.used)
    texts = ((learned, "".join(piece.text for piece in group)) for learned, group in groups)
    return Text("".join(f"⟦{text}⟧" if learned else text for learned, text in texts))


def _span(piece: Piece, shade: int) -> str:
    style = f"background:{COLORS[shade]};color:#113;" if piece.trained and piece.used else ""
    style += "font-weight:bold;" if piece.control else ""
    style += "" if piece.used else "text-decoration:line-through;"
    text = html.escape(piece.text).replace("\n", "⏎\n")
    return f'<span style="{style}">{text}</span>' if style else text
