r"""Joins the prompt that inference sees with the answer after it, where a template renders both together otherwise.

A template may leave reasoning out of an answer (DeepSeek R1, V3), open a reasoning block in its generation prompt that
it does not write for an answer without reasoning (MiniMax M2), or change what comes before an answer once the answer
is there (gpt-oss). What must be learned is what generation writes: the answer's own part of the rendering, after the
complete generation prompt, with its reasoning in the block. For example R1, with the block in brackets:

    prompt    <｜User｜>Hi<｜Assistant｜>[<think>\n]
    rendered  <｜User｜>Hi<｜Assistant｜>Yo<｜end▁of▁sentence｜>
    learned   <｜User｜>Hi<｜Assistant｜>[<think>\nA greeting.\n</think>\n\n]Yo<｜end▁of▁sentence｜>
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sartor.prompt.layout import Layout, Slot, Turn

_OPENED = re.compile(r"(<(?!/)[^<>\s]*think[^<>\s]*>|\[THINK\])(\s*)\Z")
_EMPTY = re.compile(r"\s*((<(?!/)[^<>\s]*think[^<>\s]*>|\[THINK\])\s*)?(</[^<>\s]*think[^<>\s]*>|\[/THINK\])")
_CLOSED = re.compile(r"(</[^<>\s]*think[^<>\s]*>|\[/THINK\])\s*\Z")


@dataclass(frozen=True, slots=True)
class ReasoningBlock:
    """What stands around the reasoning of an answer."""

    opened: str
    """The end of the generation prompt if it opens the block; else empty."""
    opening: str
    closing: str


@dataclass(frozen=True, slots=True)
class Joined:
    """A prompt with its answer."""

    layout: Layout
    empty_block: bool
    """Whether the answer begins with an empty reasoning block that the template would not have written."""


def reasoning_block(prompt: str, closing: str = "") -> ReasoningBlock | None:
    """The block for an answer after this generation prompt; None if the prompt has closed it already.

    `closing` is what the template writes after reasoning, if it renders any. Otherwise it is what DeepSeek's models
    write: `\\n</think>\\n\\n`, or `</think>` alone after a prompt that ends with `<think>` and no line break.
    """
    if _CLOSED.search(prompt):
        return None
    if not (found := _OPENED.search(prompt)):
        return ReasoningBlock("", "<think>\n", closing or "\n</think>\n\n")
    tag = found[1][0] + "/" + found[1][1:]
    return ReasoningBlock(found[0], "", closing or (f"\n{tag}\n\n" if found[2] else tag))


def joined(prompt: Layout, whole: Layout, block: ReasoningBlock | None, reasoning: bool) -> Joined | None:
    """The prompt's layout followed by the own part of the last turn in `whole`; None where they do not meet.

    `prompt` ends with the generation prompt and has the turns of its history. With a `block`, the answer begins with
    it: around a slot for its `reasoning`, or empty.
    """
    turn = whole.turns[-1]
    own = next((n for n, slot in enumerate(whole.slots) if slot.message == turn.message), len(whole.slots))
    if any(slot.message != turn.message for slot in whole.slots[own:]) or whole.slots[:own][-1:] != prompt.slots[-1:]:
        return None
    pieces = _join_pieces(prompt.pieces, whole.pieces, own, block, reasoning)
    broken = _join_pieces(prompt.broken or prompt.pieces, whole.broken or whole.pieces, own, block, reasoning)
    if pieces is None or broken is None:
        return None
    last = len(prompt.slots)
    added = (Slot(turn.message, "reasoning", "strip"),) if block and reasoning else ()
    piece = turn.stop[0] - own + last + len(added)
    # The borders are counted from the end of their piece, because its beginning has changed.
    stop = piece, len(pieces[piece]) - (len(whole.pieces[turn.stop[0]]) - turn.stop[1])
    layout = replace(
        whole,
        pieces=pieces,
        slots=(*prompt.slots, *added, *whole.slots[own:]),
        turns=(*prompt.turns, Turn(turn.message, (last, len(prompt.pieces[-1])), stop)),
        traced=tuple(dict.fromkeys((*prompt.traced, *whole.traced))),
        needles=tuple(dict.fromkeys((*prompt.needles, *whole.needles))),
        edges=prompt.edges + whole.edges,
        broken=broken if broken != pieces else (),
    )
    return Joined(layout, not reasoning and not whole.pieces[own].startswith(prompt.pieces[-1]))


def _join_pieces(
    prompt: tuple[str, ...], whole: tuple[str, ...], own: int, block: ReasoningBlock | None, reasoning: bool
) -> tuple[str, ...] | None:
    header, answer = prompt[-1], whole[own]
    opened = block.opened if block else ""
    if answer.startswith(header):
        rest = answer[len(header) :]
        block = block if reasoning else None  # without any, the template has written the block as it wants it
    elif opened and answer.startswith(base := header.removesuffix(opened)):
        rest = answer[len(base) :]
    else:
        return None
    if block is None:
        return (*prompt[:-1], header + rest, *whole[own + 1 :])
    closing = block.closing
    if written := _EMPTY.match(rest):  # an empty block, or its end, that the template has written
        rest = rest[written.end() :]
        between = rest[: len(rest) - len(rest.lstrip())]  # the template's own white space after its block, or ours
        closing = closing.rstrip() + max(closing[len(closing.rstrip()) :], between, key=len)
        rest = rest[len(between) :]
    if reasoning:
        return (*prompt[:-1], header + block.opening, closing + rest, *whole[own + 1 :])
    return (*prompt[:-1], header + (block.opening + closing) + rest, *whole[own + 1 :])
