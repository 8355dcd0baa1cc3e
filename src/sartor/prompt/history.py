"""Decides which training sequences a conversation becomes: each answer is trained on after the prompt of inference.

Many templates render earlier answers otherwise once another question follows: without their reasoning (Qwen3), with
another end token (gpt-oss), or with the system text elsewhere (Mistral). The conversation up to an answer, rendered
as inference has it, is then no beginning of the whole, and the answer needs a sequence of its own. Whether it does is
found by rendering, once per structure, never by a rule: answers that stand unchanged in each other's prompts share one
sequence, so most templates give one for the whole conversation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from sartor.base.types import Message, Tool
from sartor.prompt.layout import Layout, Rendered
from sartor.prompt.layout_cache import MAX_LAYOUTS
from sartor.prompt.template import Template


@dataclass(frozen=True, slots=True)
class AnswerGroup:
    """A rendered conversation, and the numbers of the messages in it that are trained on."""

    rendered: Rendered
    answers: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Grouping:
    """How the answers of a structure are grouped."""

    layout: Layout
    """Kept because it is looked up by `id(layout)`, which must not be reused."""
    joint: Layout
    """What the layouts of all its beginnings say about the texts that they are right for."""
    groups: tuple[frozenset[int], ...]


class History:
    """Groups the answers of conversations under one template; keeps the grouping of each structure."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._kept: OrderedDict[tuple[int, Sequence[int]], _Grouping] = OrderedDict()

    def groups(self, messages: Sequence[Message], tools: Sequence[Tool], wanted: Sequence[int]) -> list[AnswerGroup]:
        """The fewest sequences in which each wanted answer stands after its true prompt, in the order of the answers.

        Raises: PromptError where the template cannot render one of them.
        """
        last = self._up_to(wanted[-1], messages, tools)
        if len(wanted) == 1:
            return [AnswerGroup(last, frozenset(wanted))]
        key = id(last.layout), tuple(wanted)
        kept = self._kept.get(key)
        if kept is None or not kept.joint.fits(messages):
            rendered = {number: self._up_to(number, messages, tools) for number in wanted[:-1]}
            rendered[wanted[-1]] = last
            kept = _Grouping(last.layout, _joint([r.layout for r in rendered.values()]), tuple(_grouped(rendered)))
            if all(found.usual for found in rendered.values()):  # else the texts of this row have decided
                self._kept[key] = kept
                if len(self._kept) > MAX_LAYOUTS:
                    self._kept.popitem(last=False)
            return [AnswerGroup(rendered[max(answers)], answers) for answers in kept.groups]
        found = [AnswerGroup(self._up_to(max(answers), messages, tools), answers) for answers in kept.groups[:-1]]
        return [*found, AnswerGroup(last, kept.groups[-1])]

    def _up_to(self, answer: int, messages: Sequence[Message], tools: Sequence[Tool]) -> Rendered:
        return self.template.lay_out_answer(messages[: answer + 1], tools)


def _joint(layouts: Sequence[Layout]) -> Layout:
    needles = tuple(dict.fromkeys(needle for layout in layouts for needle in layout.needles))
    return Layout((), (), needles=needles, edges="".join(layout.edges for layout in layouts))


def _grouped(rendered: dict[int, Rendered]) -> list[frozenset[int]]:
    """The answers that share a sequence: each in the shortest one that has it."""
    groups: dict[int, set[int]] = {}
    for number in sorted(rendered, reverse=True):
        layout = rendered[number].layout
        home = min((end for end in groups if _begins_with(rendered[end].layout, layout)), default=number)
        groups.setdefault(home, set()).add(number)
    return [frozenset(groups[end]) for end in sorted(groups)]


def _begins_with(whole: Layout, part: Layout) -> bool:
    """Whether everything up to the end of the last turn of `part` stands in `whole` as well, as the same turn."""
    turn = part.turns[-1]
    piece, offset = turn.stop
    return (
        turn in whole.turns
        and whole.slots[:piece] == part.slots[:piece]
        and whole.pieces[:piece] == part.pieces[:piece]
        and whole.pieces[piece][:offset] == part.pieces[piece][:offset]
    )
