r"""Finds where a template puts the texts of a conversation: control pieces around slots, and the assistant's turns.

Every conversation of one structure (the same roles, tools, and empty texts) has the same layout. To find it, the
structure is rendered once with a placeholder for every text, the *probe*. What lies between the placeholders is control
text; the placeholder's padding shows how the template trims a text; a `TracingStr` notes whether it inspects one.

For example, ChatML renders [user "Hi", assistant "Yo"] as

    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n

Its layout has two *slots* (where Hi and Yo go) and the three *pieces* `<|im_start|>user\n`,
`<|im_end|>\n<|im_start|>assistant\n` and `<|im_end|>\n`. It has one *turn*, the part that the model must generate
itself and that is trained on: `Yo<|im_end|>`. A turn starts where the generation prompt ends and stops after the end
token: here from (1, 33), behind the header in piece 1, to (2, 10), behind the end token in piece 2.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sartor.base.i18n import Text, tr
from sartor.base.types import Message, Note
from sartor.prompt.tokenizer import BREAK
from sartor.prompt.tracing import TRACE, Trace, TracingStr

Field = Literal["text", "reasoning"]
Place = tuple[int, int]
"""A position in the control text of a layout: the number of the piece, and the offset in characters."""
Render = Callable[[Sequence[Message], bool], str]
"""Renders messages, with or without a generation prompt."""

MAX_CONTEXT = 64
"""Characters before a turn that are compared to find it."""
PADDING = "\t \n\t "
EDITS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "strip": str.strip,
    "lstrip": str.lstrip,
    "rstrip": str.rstrip,
    "json": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json-strip": lambda text: json.dumps(text.strip(), ensure_ascii=False)[1:-1],
    "strip-lines": lambda text: text.strip("\n"),
    "lstrip-lines": lambda text: text.lstrip("\n"),
    "rstrip-lines": lambda text: text.rstrip("\n"),
    "json-ascii": lambda text: json.dumps(text)[1:-1],
}
"""The edits that templates may make to a text; any other is rejected."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a text goes: which field of which message, and how the template edits it first."""

    message: int
    field: Field
    edit: str = "raw"


MARK = f"§sartor{secrets.token_hex(8)}-"
"""What placeholders begin with: no tool, call or template can contain it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the assistant generates itself: from the end of the generation prompt to the end of the end token."""

    message: int
    start: Place
    stop: Place
    exact: bool = True
    """Whether it starts with the complete generation prompt before it."""
    fault: Text | None = None
    """Why it cannot be learned where it stands; its borders are a guess then."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The rendering of a structure: `pieces[0] slots[0] pieces[1] slots[1] … pieces[-1]`."""

    pieces: tuple[str, ...]
    slots: tuple[Slot, ...]
    turns: tuple[Turn, ...] = ()
    traced: tuple[str, ...] = ()
    """The string methods that may make the rendering depend on texts; empty if it only inserts or searches them."""
    needles: tuple[str, ...] = ()
    """The strings that the template searches texts for: one that has any may be rendered otherwise."""
    edges: str = ""
    """The characters that it removes at the ends of texts."""
    broken: tuple[str, ...] = ()
    """The pieces with control-token strings in tools and calls broken by `BREAK`; empty if there are none."""

    def texts(self, messages: Sequence[Message]) -> list[str]:
        """The texts of a conversation for the slots, edited as the template does."""
        texts = []
        for slot in self.slots:
            message = messages[slot.message]
            text = message.text if slot.field == "text" else message.reasoning or ""
            texts.append(text if slot.edit == "raw" else EDITS[slot.edit](text))
        return texts

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether the rendering of a conversation of this structure certainly has this layout."""
        if self.traced:
            return False
        texts = (text for message in messages for text in (message.text, message.reasoning) if text)
        return all(_is_plain(text, self.needles, self.edges) for text in texts)

    def join(self, texts: Sequence[str]) -> str:
        """The rendered text with these texts in the slots."""
        joined = [""] * (2 * len(texts) + 1)
        joined[::2] = self.pieces
        joined[1::2] = texts
        return "".join(joined)


class UnsupportedTemplate(Exception):
    """A rendering cannot be split into pieces and slots; callers turn it into a PromptError."""

    def __init__(self, reason: Text) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation: its layout, and the texts for the layout's slots."""

    layout: Layout
    texts: list[str]
    notes: tuple[Note, ...] = ()
    left_out: frozenset[int] = frozenset()
    """The messages whose reasoning is not rendered."""
    usual: bool = True
    """Whether it is known without looking at the texts that they have this layout (see `Layout.fits`)."""

    @property
    def text(self) -> str:
        return self.layout.join(self.texts)


def probe(messages: Sequence[Message], render: Render) -> Layout:
    """The layout of a structure, without turns, from one rendering with placeholders. Raises: UnsupportedTemplate."""
    trace = Trace()
    fields: list[tuple[int, Field]] = []
    marked: list[Message] = []
    for index, message in enumerate(messages):
        if message.reasoning:
            message = replace(message, reasoning=_placeholder(len(fields), trace))
            fields.append((index, "reasoning"))
        if message.text:
            message = replace(message, text=_placeholder(len(fields), trace))
            fields.append((index, "text"))
        marked.append(message)
    token = TRACE.set(trace)
    try:
        text = render(marked, False)
    finally:
        TRACE.reset(token)
    pieces, slots, stop = [], [], 0
    for found in re.finditer(MARK + r"(\d+)(\\*)\"§", text):
        index, field = fields[int(found[1])]
        left, right, edit = _padding_kept(text, found)
        pieces.append(text[stop:left])
        slots.append(Slot(index, field, edit))
        stop = right
    _require_each_once(fields, slots)
    return Layout(
        (*pieces, text[stop:]),
        tuple(slots),
        traced=tuple(trace.methods),
        needles=tuple(trace.needles),
        edges="".join(trace.edges),
    )


def locate(messages: Sequence[Message], layout: Layout, render: Render) -> Layout:
    """The layout of one conversation, by finding its texts in the real rendering. Raises: UnsupportedTemplate."""
    whole = render(messages, False)
    spans: list[tuple[int, int, Slot]] = []
    for slot in layout.slots:
        marked = list(messages)
        message = messages[slot.message]
        if slot.field == "text":
            marked[slot.message], original = replace(message, text=MARK), message.text
        else:
            marked[slot.message], original = replace(message, reasoning=MARK), message.reasoning or ""
        before, _, after = render(marked, False).partition(MARK)
        stop = len(whole) - len(after)
        for name, edit in EDITS.items():
            fits = whole.startswith(before) and whole.endswith(after) and len(before) <= stop
            if fits and whole[len(before) : stop] == edit(original):
                spans.append((len(before), stop, replace(slot, edit=name)))
                break
        else:
            raise UnsupportedTemplate(tr("it changes the text of message {number}", number=slot.message + 1))
    spans.sort(key=lambda span: span[0])
    stops = [0, *(stop for _, stop, _ in spans)]
    if any(start < before for (start, _, _), before in zip(spans, stops)):
        raise UnsupportedTemplate(tr("it renders two messages at the same position"))
    pieces = [whole[before:start] for (start, _, _), before in zip(spans, stops)]
    return Layout((*pieces, whole[stops[-1] :]), tuple(slot for _, _, slot in spans), traced=("located",))


def with_turns(
    layout: Layout,
    messages: Sequence[Message],
    texts: Sequence[str],
    render: Render,
    end: Callable[[str, bool, bool], int],
    header: str,
) -> Layout:
    """The layout with the turn of every assistant message.

    `texts` has one text of `messages` per slot. `end(control text after a message, whether it stops with the turn,
    whether there are tool calls)` returns how many of its characters belong to the turn, 0 if nothing ends it.
    `header` is what a generation prompt appends; it marks the start of a turn that comes first in the conversation,
    where most templates cannot render the empty history.
    """
    whole = layout.join(texts)
    starts, stops = _slot_spans(layout, texts)
    turns = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = max((stop for slot, stop in zip(layout.slots, stops) if slot.message < index), default=0)
        own = [(start, stop) for slot, start, stop in zip(layout.slots, starts, stops) if slot.message == index]
        after = min((start for slot, start in zip(layout.slots, starts) if slot.message > index), default=len(whole))
        fault: Text | None = None
        if index:
            prompt = render(messages[:index], True)
        else:
            prompt = whole[: whole.find(header, 0, min([start for start, _ in own], default=after)) + len(header)]
        common = _common_prefix(prompt, whole)
        exact = common == len(prompt) and common >= before
        if common < before:  # the template writes an earlier message otherwise now that another follows it
            history = render(messages[:index], False)
            history = history if prompt.startswith(history) else prompt.removesuffix(header)
            limit = min([start for start, _ in own], default=after)
            common = _start_near(whole, before, limit, history, prompt.removeprefix(history))
        start = min([common, *(start for start, _ in own), after])
        exact = exact and start == len(prompt)
        if start < before:
            fault = tr("message {number} does not start with the generation prompt", number=index + 1)
            start = before
        last = max([start, *(stop for _, stop in own)])
        so_far = render(messages[: index + 1], False)
        bounded = whole.startswith(so_far) and last <= len(so_far) <= after
        length = end(whole[last : len(so_far) if bounded else after], bounded, bool(message.tool_calls))
        if not length:
            fault = tr("no control token ends message {number}", number=index + 1)
        borders = _place(start, starts, stops), _place(last + length, starts, stops)
        turns.append(Turn(index, *borders, exact, fault))
    return replace(layout, turns=tuple(turns))


def neutral(messages: Sequence[Message]) -> list[Message]:
    """The same structure with texts that mean nothing to any template."""
    return [
        replace(
            message,
            text=message.text and f"§sartor{number}§",
            reasoning=message.reasoning and f"§sartor{number}r§",
        )
        for number, message in enumerate(messages)
    ]


def without_breaks(layout: Layout) -> Layout:
    """The layout without `BREAK` in its pieces; the pieces with it move to `broken`."""
    if not any(BREAK in piece for piece in layout.pieces):
        return layout

    def moved(place: Place) -> Place:
        return place[0], place[1] - layout.pieces[place[0]].count(BREAK, 0, place[1])

    return replace(
        layout,
        pieces=tuple(piece.replace(BREAK, "") for piece in layout.pieces),
        turns=tuple(replace(turn, start=moved(turn.start), stop=moved(turn.stop)) for turn in layout.turns),
        traced=(*layout.traced, "broken"),
        broken=layout.pieces,
    )


def _placeholder(number: int, trace: Trace) -> str:
    return TracingStr.of(f'{PADDING}{MARK}{number}"§{PADDING}', trace)


def _padding_kept(text: str, found: re.Match[str]) -> tuple[int, int, str]:
    """Start and end of a placeholder including the padding that is left, and which edit removed the rest."""
    escaped = json.dumps(PADDING)[1:-1]
    padding = escaped if found[2] else PADDING
    left = text.endswith(padding, 0, found.start())
    right = text.startswith(padding, found.end())
    if found[2]:
        edit = "json" if left and right else "json-strip"
    else:
        edit = {(True, True): "raw", (False, True): "lstrip", (True, False): "rstrip"}.get((left, right), "strip")
    return found.start() - len(padding) * left, found.end() + len(padding) * right, edit


def _is_plain(text: str, needles: Sequence[str], edges: str) -> bool:
    """Whether a template that searches for these strings, and removes these characters, does neither here."""
    if text.isspace() or any(needle in text for needle in needles):
        return False
    if not edges:
        return True
    inner = text.strip()
    return not any(character in edges for character in (text[0], text[-1], inner[0], inner[-1]))


def _common_prefix(one: str, other: str) -> int:
    """The length of the common prefix of two texts."""
    if other.startswith(one):
        return len(one)
    return next((n for n, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _start_near(whole: str, before: int, limit: int, history: str, header: str) -> int:
    """Where a turn between two positions starts, found by what surrounds it: its history, and what a prompt appends.

    Returns the position behind as much of the header as is there; 0, where no turn starts, if nothing is found.
    """
    best, found = 0, 0
    for place in range(before, limit + 1):
        length = _common_prefix(header, whole[place:limit])
        around = length + _common_suffix(history, whole[:place])
        if around > best and (2 * length >= len(header)):
            best, found = around, place + length
    return found


def _common_suffix(one: str, other: str) -> int:
    limit = min(len(one), len(other), MAX_CONTEXT)
    return next((n for n in range(limit) if one[-1 - n] != other[-1 - n]), limit)


def _require_each_once(fields: list[tuple[int, Field]], slots: list[Slot]) -> None:
    """Every text must be rendered exactly once; the reasoning of earlier turns may be dropped."""
    for index, field in fields:
        count = sum(slot.message == index and slot.field == field for slot in slots)
        if count > 1 or (count == 0 and field == "text"):
            raise UnsupportedTemplate(
                tr("it drops the text of message {number}", number=index + 1)
                if count == 0
                else tr("it renders a text of message {number} {count} times", number=index + 1, count=count)
            )


def _slot_spans(layout: Layout, texts: Sequence[str]) -> tuple[list[int], list[int]]:
    """Where each slot starts and stops, in characters of the rendered text."""
    starts, stops, position = [], [], 0
    for piece, text in zip(layout.pieces, texts):
        starts.append(position + len(piece))
        position = starts[-1] + len(text)
        stops.append(position)
    return starts, stops


def _place(position: int, starts: Sequence[int], stops: Sequence[int]) -> Place:
    """A position in the rendered text, outside of all slots, as piece and offset."""
    piece = sum(start < position for start in starts)
    return piece, position - (stops[piece - 1] if piece else 0)
