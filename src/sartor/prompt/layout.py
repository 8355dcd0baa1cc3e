"""Where a rendering's texts stand: control pieces around slots, and the turns an assistant writes; knows no token ids.

A structure (roles, which texts are empty, tools) is rendered once with a watched placeholder for every text. What
stands between the placeholders is control text; how the template trims a text is read off the placeholder's padding;
whether it looks into a text is seen by watching.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sartor.base.types import Message
from sartor.prompt.tokenizer import BREAK

Field = Literal["text", "reasoning"]
Place = tuple[int, int]
"""A place in a rendering: the piece's number, and characters into it."""
Render = Callable[[Sequence[Message], bool], str]
"""Messages and whether a generation prompt is wanted, to text."""

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
"""What templates do to a text before they write it; anything else is refused."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One text in a rendering: whose it is, and what the template does to it first."""

    message: int
    field: Field
    edit: str = "raw"


@dataclass(frozen=True, slots=True)
class Turn:
    """What an assistant writes itself: from where the generation prompt ends to the end of the turn's end token."""

    message: int
    start: Place
    stop: Place


@dataclass(frozen=True, slots=True)
class Layout:
    """A structure's rendering: `pieces[0] slot[0] pieces[1] slot[1] … pieces[-1]`."""

    pieces: tuple[str, ...]
    slots: tuple[Slot, ...]
    turns: tuple[Turn, ...] = ()
    traced: tuple[str, ...] = ()
    """What the template asked of the texts; empty when it only writes them (trimmed at most)."""
    exact_prompt: bool = True
    """False where a turn does not begin with the whole generation prompt."""
    broken: tuple[str, ...] = ()
    """The pieces with the control tokens' strings in tools and calls broken; empty when there are none."""

    def texts(self, messages: Sequence[Message]) -> list[str]:
        """The slots' texts of a real conversation, edited as the template does."""
        found = []
        for slot in self.slots:
            message = messages[slot.message]
            text = message.text if slot.field == "text" else message.reasoning or ""
            found.append(text if slot.edit == "raw" else EDITS[slot.edit](text))
        return found

    def join(self, texts: Sequence[str]) -> str:
        """The whole rendering with these texts in the slots."""
        joined = [""] * (2 * len(texts) + 1)
        joined[::2] = self.pieces
        joined[1::2] = texts
        return "".join(joined)


class UnsupportedTemplate(Exception):
    """A rendering cannot be taken apart; the reason is its only argument. Callers make a PromptError or Skipped."""


def probe(messages: Sequence[Message], render: Render) -> Layout:
    """A structure's layout without its turns, from one rendering with placeholders. Raises: Unjoinable."""
    seen: list[str] = []
    wanted: list[tuple[int, Field]] = []
    marked: list[Message] = []
    for index, message in enumerate(messages):
        if message.reasoning:
            message = replace(message, reasoning=_placeholder(len(wanted), seen))
            wanted.append((index, "reasoning"))
        if message.text:
            message = replace(message, text=_placeholder(len(wanted), seen))
            wanted.append((index, "text"))
        marked.append(message)
    text = render(marked, False)
    pieces, slots, stop = [], [], 0
    for found in re.finditer(r"§sartor(\d+)(\\*)\"§", text):
        index, field = wanted[int(found[1])]
        left, right, edit = _padding_kept(text, found)
        pieces.append(text[stop:left])
        slots.append(Slot(index, field, edit))
        stop = right
    _require_each_once(wanted, slots)
    return Layout((*pieces, text[stop:]), tuple(slots), traced=tuple(dict.fromkeys(seen)))


def locate(messages: Sequence[Message], layout: Layout, render: Render) -> Layout:
    """A real conversation's own layout, its texts found in the true rendering one by one. Raises: Unjoinable."""
    whole = render(messages, False)
    spans: list[tuple[int, int, Slot]] = []
    for slot in layout.slots:
        marked = list(messages)
        message = messages[slot.message]
        if slot.field == "text":
            marked[slot.message], original = replace(message, text="§sartor§"), message.text
        else:
            marked[slot.message], original = replace(message, reasoning="§sartor§"), message.reasoning or ""
        before, _, after = render(marked, False).partition("§sartor§")
        stop = len(whole) - len(after)
        for name, edit in EDITS.items():
            fits = whole.startswith(before) and whole.endswith(after) and len(before) <= stop
            if fits and whole[len(before) : stop] == edit(original):
                spans.append((len(before), stop, replace(slot, edit=name)))
                break
        else:
            raise UnsupportedTemplate(f"the template changes the text of message {slot.message + 1}")
    spans.sort(key=lambda span: span[0])
    stops = [0, *(stop for _, stop, _ in spans)]
    if any(start < before for (start, _, _), before in zip(spans, stops)):
        raise UnsupportedTemplate("two messages stand in the same place")
    pieces = [whole[before:start] for (start, _, _), before in zip(spans, stops)]
    return Layout((*pieces, whole[stops[-1] :]), tuple(slot for _, _, slot in spans), traced=layout.traced)


def with_turns(
    layout: Layout,
    messages: Sequence[Message],
    texts: Sequence[str],
    render: Render,
    end: Callable[[str, bool, bool], int],
    header: str,
) -> Layout:
    """The layout with the turns of every assistant message.

    `messages` are those that `texts` (one a slot) came from. `end` is given the control text after a message
    (up to the turn's end or up to the next message's text, which of them, and whether it holds tool calls) and says
    how many of its characters belong to the turn, 0 when nothing ends it. `header` is what a generation prompt adds;
    it marks the beginning of a turn at the head, before which most templates render nothing. Raises: Unjoinable.
    """
    whole = layout.join(texts)
    starts, stops = _slot_spans(layout, texts)
    turns, exact = [], True
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = max((stop for slot, stop in zip(layout.slots, stops) if slot.message < index), default=0)
        own = [(start, stop) for slot, start, stop in zip(layout.slots, starts, stops) if slot.message == index]
        after = min((start for slot, start in zip(layout.slots, starts) if slot.message > index), default=len(whole))
        if index:
            prompt = render(messages[:index], True)
        else:
            prompt = whole[: whole.find(header, 0, min([start for start, _ in own], default=after)) + len(header)]
        common = _common(prompt, whole)
        start = min([common, *(start for start, _ in own), after])
        exact = exact and start == len(prompt)
        if start < before:
            raise UnsupportedTemplate(f"message {index + 1} does not begin as the generation prompt does")
        last = max([start, *(stop for _, stop in own)])
        so_far = render(messages[: index + 1], False)
        bounded = whole.startswith(so_far) and last <= len(so_far) <= after
        length = end(whole[last : len(so_far) if bounded else after], bounded, bool(message.tool_calls))
        if not length:
            raise UnsupportedTemplate(f"no control token ends message {index + 1}")
        turns.append(Turn(index, _place(start, starts, stops), _place(last + length, starts, stops)))
    return replace(layout, turns=tuple(turns), exact_prompt=exact)


def neutral(messages: Sequence[Message]) -> list[Message]:
    """The same structure with texts that no template takes for anything else."""
    return [
        replace(
            message,
            text=message.text and f"§sartor{number}§",
            reasoning=message.reasoning and f"§sartor{number}r§",
        )
        for number, message in enumerate(messages)
    ]


def without_breaks(layout: Layout) -> Layout:
    """The layout of the true rendering, after one was made with the control tokens in tools and calls broken."""
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


def _placeholder(number: int, seen: list[str]) -> str:
    return TracingStr.of(f'{PADDING}§sartor{number}"§{PADDING}', seen)


def _padding_kept(text: str, found: re.Match[str]) -> tuple[int, int, str]:
    """Where a placeholder begins and ends with what is left of its padding, and which edit that means."""
    escaped = json.dumps(PADDING)[1:-1]
    padding = escaped if found[2] else PADDING
    left = text.endswith(padding, 0, found.start())
    right = text.startswith(padding, found.end())
    if found[2]:
        edit = "json" if left and right else "json-strip"
    else:
        edit = {(True, True): "raw", (False, True): "lstrip", (True, False): "rstrip"}.get((left, right), "strip")
    return found.start() - len(padding) * left, found.end() + len(padding) * right, edit


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    if other.startswith(one):
        return len(one)
    return next((n for n, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _require_each_once(wanted: list[tuple[int, Field]], slots: list[Slot]) -> None:
    """Every text stands in the rendering once; reasoning of earlier turns may be left out by the template."""
    for index, field in wanted:
        count = sum(slot.message == index and slot.field == field for slot in slots)
        if count > 1 or (count == 0 and field == "text"):
            times = "not at all" if count == 0 else f"{count} times"
            raise UnsupportedTemplate(f"the {field} of message {index + 1} stands in it {times}")


def _slot_spans(layout: Layout, texts: Sequence[str]) -> tuple[list[int], list[int]]:
    """Where each slot starts and stops, in characters of the whole rendering."""
    starts, stops, position = [], [], 0
    for piece, text in zip(layout.pieces, texts):
        starts.append(position + len(piece))
        position = starts[-1] + len(text)
        stops.append(position)
    return starts, stops


def _place(position: int, starts: Sequence[int], stops: Sequence[int]) -> Place:
    """A position of the rendering, never inside a slot, as piece and offset."""
    piece = sum(start < position for start in starts)
    return piece, position - (stops[piece - 1] if piece else 0)


_HARMLESS = {"strip", "lstrip", "rstrip"}
_UNTRACED = {
    "__new__",
    "__init__",
    "__str__",
    "__class__",
    "__getattribute__",
    "__setattr__",
    "__delattr__",
    "__doc__",
    "__init_subclass__",
    "__subclasshook__",
    "__add__",
    "__dir__",
    "__reduce__",
    "__reduce_ex__",
    "__getnewargs__",
    "__getstate__",
    "__sizeof__",
}


class TracingStr(str):
    """A text that notes what is asked of it; being written, joined by `+`, trimmed and tested for emptiness is free."""

    seen: list[str]

    @classmethod
    def of(cls, text: str, seen: list[str]) -> TracingStr:
        watched = cls(text)
        watched.seen = seen
        return watched

    def __bool__(self) -> bool:
        return str.__len__(self) > 0

    def __add__(self, other: str) -> TracingStr:
        return TracingStr.of(str.__add__(self, other), self.seen)

    def __radd__(self, other: str) -> TracingStr:
        return TracingStr.of(str.__add__(other, self), self.seen)


def _tracing_method(name: str) -> Callable[..., Any]:
    original = getattr(str, name)

    def method(self: TracingStr, *args: Any, **kwargs: Any) -> Any:
        if name not in _HARMLESS or args:
            self.seen.append(name)
        result = original(self, *args, **kwargs)
        return TracingStr.of(result, self.seen) if type(result) is str else result

    return method


for _name in dir(str):
    if _name not in _UNTRACED and callable(getattr(str, _name)):
        setattr(TracingStr, _name, _tracing_method(_name))
