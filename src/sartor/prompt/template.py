"""A chat template, the model's own or a named one: renders conversations and splits them into control and user text."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, takewhile
from typing import Any

from sartor.base.errors import PromptError
from sartor.base.i18n import tr
from sartor.base.types import Message, Note, Segment, Tool
from sartor.prompt.answer_layout import Joined, ReasoningBlock, joined, reasoning_block
from sartor.prompt.layout import (
    Layout,
    Rendered,
    Turn,
    UnsupportedTemplate,
    locate,
    neutral,
    probe,
    with_turns,
    without_breaks,
)
from sartor.prompt.layout_cache import MAX_LAYOUTS, LayoutCache
from sartor.prompt.messages import calls_key, join_reasoning, split_reasoning
from sartor.prompt.named_templates import advice, named
from sartor.prompt.renderer import NO_TOOL_CALLS, NO_TOOLS, Renderer
from sartor.prompt.template_source import preamble, require_tokens, special_tokens, template_source
from sartor.prompt.tokenizer import Codec, Tokenizer
from sartor.prompt.turn_ends import ANSWER, CALL, LOOK, QUESTION, MessageEnd, declared_ends, find_added_ends


class Template:
    """A chat template bound to a tokenizer. Create it with `Template.from_tokenizer`."""

    def __init__(self, name: str, source: str, codec: Codec, variables: Mapping[str, Any]) -> None:
        self.name = name
        self.source = source
        """The Jinja source as saved with a model, including `default_system` and `enable_thinking`."""
        self.codec = codec
        self.renderer = Renderer(name, self.source, codec, variables)
        self._layouts = LayoutCache()
        self._answers: OrderedDict[tuple[int, int], tuple[Layout, Layout, Joined | None]] = OrderedDict()
        self._block: ReasoningBlock | None = None
        self.renders_reasoning = False
        self.drops_reasoning = variables.get("enable_thinking") is False
        self.adds_reasoning = False
        """Whether the reasoning of an answer goes between the generation prompt and the template's own rendering."""
        self.end = ""
        """The control text that ends an assistant turn."""
        self.ends: tuple[str, ...] = ()
        """`end`, and what ends a turn with tool calls if it differs; generation stops at each of them."""
        self.declared_ends: tuple[str, ...] = ()
        """What the model's own files say ends generation."""
        self.message_end: MessageEnd | None = None
        """What ends earlier answers, where a token does that which also stands inside an answer."""
        self.header = ""
        """What the generation prompt appends to a conversation."""
        self.notes: tuple[Note, ...] = ()
        """What the user should know about this template before training with it."""

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Tokenizer,
        name: str | None = None,
        *,
        default_system: str | None = None,
        enable_thinking: bool | None = None,
    ) -> Template:
        """The model's own template, a named one, or a `.jinja` file.

        Raises: PromptError for a base model without a template, an unknown name, control tokens that the tokenizer
        lacks, or a template that cannot be split or never trains its stop token.
        """
        codec = Codec(tokenizer)
        special = special_tokens(tokenizer)
        source = template_source(tokenizer, name)
        if name is not None and not name.endswith(".jinja"):
            require_tokens(named(name), codec, special, has_own=bool(tokenizer.chat_template))
        variables = {**special, **({} if enable_thinking is None else {"enable_thinking": enable_thinking})}
        if default_system is not None and codec.broken(default_system) != default_system:
            raise PromptError(
                "default_system contains the text of a control token.", "default_system", "Remove that text."
            )
        made = cls(
            name or "model default", preamble(source, default_system, enable_thinking) + source, codec, variables
        )
        made._check(tokenizer)
        return made

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, generation: bool = False) -> str:
        """The conversation as text, the same as any other program renders it from this template.

        Raises: PromptError if the template rejects the conversation.
        """
        return self.renderer.render(self.prepare(messages)[0], tools, generation)

    def segments(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, open_turn: bool = False
    ) -> list[Segment]:
        """The rendering in parts: control text or user text, trained on or not.

        With `open_turn` it ends with the generation prompt. The parts joined are `render(messages, tools)`.
        Raises: PromptError.
        """
        rendered = self.lay_out(messages, tools, generation=open_turn)
        borders: dict[int, list[tuple[int, bool]]] = {}
        for turn in rendered.layout.turns:
            if messages[turn.message].train and not open_turn:
                self.require_turn(turn)
                borders.setdefault(turn.start[0], []).append((turn.start[1], True))
                borders.setdefault(turn.stop[0], []).append((turn.stop[1], False))
        segments, train = [], False
        for number, piece in enumerate(rendered.layout.pieces):
            before = 0
            for offset, starts in borders.get(number, ()):
                segments.append(Segment(piece[before:offset], True, train))
                before, train = offset, starts
            segments.append(Segment(piece[before:], True, train))
            if number < len(rendered.texts):
                segments.append(Segment(rendered.texts[number], False, train))
        return [segment for segment in segments if segment.text]

    def prepare(self, messages: Sequence[Message]) -> tuple[Sequence[Message], tuple[Note, ...]]:
        """Messages with their reasoning where this template expects it, and notes on what was changed."""
        if any(message.tool_calls or message.role == "tool" for message in messages):
            messages = self.renderer.calls.complete(messages)
        for message in messages:
            if message.role == "assistant" and (message.reasoning is not None or "<think>" in message.text[:64]):
                break
        else:
            return messages, ()
        split = [split_reasoning(message) for message in messages]
        if all(message.reasoning is None for message in split):
            return split, ()
        if self.drops_reasoning:
            dropped = [replace(message, reasoning=None) for message in split]
            return dropped, (Note("reasoning-dropped", {"template": self.name}),)
        if self.renders_reasoning or self.adds_reasoning:
            return split, ()
        joined = [
            before if before.reasoning is None else join_reasoning(after) for before, after in zip(messages, split)
        ]
        return joined, (Note("reasoning-as-text", {"template": self.name}),)

    def lay_out(self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, generation: bool = False) -> Rendered:
        """The conversation split into layout and texts; compared with the real rendering wherever they could differ.

        Raises: PromptError with the template and the reason.
        """
        given = messages
        messages, notes = self.prepare(messages)
        data = json.dumps(tools, ensure_ascii=False, default=str) if tools else ""
        data += calls_key(messages)
        digest = hashlib.sha256(data.encode("utf-8", "surrogatepass")).digest() if data else b""
        key = (generation, digest, *((m.role, bool(m.text), _fullness(m.reasoning)) for m in messages))
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._probe(messages, tools, generation)
            self._layouts.put(key, layout, 64 * len(key))
        if isinstance(layout, UnsupportedTemplate):
            raise self._refusal(layout)
        texts = layout.texts(messages)
        if not (usual := layout.fits(messages)):
            whole = self.renderer.render(messages, tools, generation)
            if layout.join(texts) != whole:
                layout = self._locate(messages, tools, generation, layout)
                texts = layout.texts(messages)
                if layout.join(texts) != whole:
                    raise self._refusal(UnsupportedTemplate(tr("its parts do not add up to the rendered text")))
        left_out = frozenset() if messages is given else _left_out(messages, layout)
        return Rendered(layout, texts, notes, left_out, usual)

    def lay_out_answer(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Rendered:
        """A conversation that ends with an answer, as inference has it: the complete prompt, then that answer.

        It is the template's own rendering wherever that begins with the prompt and keeps the answer's reasoning.
        Raises: PromptError with the template and the reason.
        """
        rendered = self.lay_out(messages, tools)
        turn, layout = rendered.layout.turns[-1], rendered.layout
        adds = self.adds_reasoning and bool(split_reasoning(messages[-1]).reasoning)
        if len(messages) == 1 or (turn.exact and turn.fault is None and not adds):
            return rendered
        prompt = self.lay_out(messages[:-1], tools, generation=True)
        key = id(layout), id(prompt.layout)
        kept = self._answers.get(key)
        if kept is None:
            history = replace(prompt.layout, turns=self._history_turns(layout, prompt.layout, messages[:-1], tools))
            kept = self._answers[key] = layout, prompt.layout, joined(history, layout, self._block, adds)
            if len(self._answers) > MAX_LAYOUTS:
                self._answers.popitem(last=False)
        if (done := kept[2]) is None:
            return rendered
        prepared = self.prepare(messages)[0]
        empty = (Note("reasoning-empty", {"template": self.name}),) if done.empty_block else ()
        return Rendered(
            done.layout,
            done.layout.texts(prepared),
            (*rendered.notes, *empty),
            _left_out(prepared, done.layout),
            rendered.usual and prompt.usual,
        )

    def require_turn(self, turn: Turn) -> None:
        """Raises: PromptError if the turn cannot be learned where it stands."""
        if turn.fault is not None:
            raise self._refusal(UnsupportedTemplate(turn.fault))

    def ending(self, text: str, bounded: bool, called: bool) -> int:
        """How many characters of the control text after a message belong to its turn; 0 if nothing ends the turn.

        `bounded`: the text stops where the turn does, else at the next message's text. `called`: it contains tool
        calls. A turn ends with the control token right after its text (and those directly following it), or with the
        last control token after tool calls.
        """
        ends = (place + len(end) for end in (self.ends or (self.end,)) if end and (place := text.find(end)) >= 0)
        found = self.codec.scan(text)
        if called:
            return (found[-1].stop if found else 0) if bounded else next(ends, 0)
        if (stop := next(ends, 0)) or not found or text[: found[0].start].strip():
            return stop
        if self.renderer.added.answer and found[0].content not in (
            self.renderer.added.answer,
            self.renderer.added.call,
            *self.declared_ends,
        ):
            return 0
        run = takewhile(lambda pair: pair[0].stop == pair[1].start, pairwise(found if bounded else found[:1]))
        return found[sum(1 for _ in run)].stop

    def _check(self, tokenizer: Tokenizer) -> None:
        """Reject an unusable template, and find out how turns end, from one question and answer."""
        self.declared_ends = declared_ends(tokenizer, self.codec)
        try:
            self._check_turns(tokenizer.eos_token)
        except PromptError as refusal:
            if refusal.code != "unsupported-template" and "text" not in self.source:
                raise
            made = self.renderer
            self.renderer = Renderer(made.name, made.source, made.codec, made.variables, content_parts=True)
            self._layouts = LayoutCache()
            try:
                self._check_turns(tokenizer.eos_token)
            except PromptError:
                raise refusal from None

    def _check_turns(self, eos: str | None) -> None:
        history, prompt = self.render([QUESTION]), self.render([QUESTION], generation=True)
        self.header = prompt.removeprefix(history) if prompt.startswith(history) else ""
        notes = []
        try:
            layout = self._learnable([QUESTION, ANSWER])
        except PromptError:
            self.renderer.added = find_added_ends(
                self.declared_ends,
                eos,
                self.codec,
                lambda messages, tools: self.renderer.try_render(messages, tools, False),
            )
            if not self.renderer.added.answer:
                raise
            self._layouts = LayoutCache()
            layout = self._learnable([QUESTION, ANSWER])
            notes.append(Note("end-added", {"template": self.name, "end": self.renderer.added.answer}))
        turn = layout.turns[0]
        if turn.stop[0] != len(layout.pieces) - 1:
            raise self._refusal(UnsupportedTemplate(tr("the answer is not rendered last")))
        self.end = layout.pieces[-1][: turn.stop[1]]
        self.ends = tuple(dict.fromkeys((self.end, *self._end_of_a_call())))
        self._check_reasoning(QUESTION, ANSWER, prompt)
        self._check_earlier_end(layout)
        if not self.lay_out_answer([QUESTION, ANSWER]).layout.turns[-1].exact:
            notes.append(Note("prompt-differs", {"template": self.name}))
        self.notes = tuple(notes)

    def _learnable(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Layout:
        """The layout of a conversation. Raises: PromptError if an answer of it cannot be learned."""
        layout = self.lay_out(messages, tools).layout
        for turn in layout.turns:
            self.require_turn(turn)
        return layout

    def _end_of_a_call(self) -> tuple[str, ...]:
        """What ends a turn with tool calls, if it differs from `end`."""
        try:
            layout = self._learnable([QUESTION, CALL], [LOOK])
        except PromptError:
            return ()
        last = self.codec.scan(layout.pieces[layout.turns[0].stop[0]][: layout.turns[0].stop[1]])[-1].content
        return () if self.end.endswith(last) else (last,)

    def _check_earlier_end(self, layout: Layout) -> None:
        """Find out whether another token ends an answer that a question follows, and how it is told from others."""
        try:
            two = self._learnable([QUESTION, ANSWER, QUESTION, ANSWER])
            thought = self._learnable([QUESTION, replace(ANSWER, reasoning="Is it?")])
        except PromptError:
            return
        turn, last = two.turns[0], layout.turns[0]
        end = self.codec.scan(two.pieces[turn.stop[0]][: turn.stop[1]])[-1].content
        if self.end.endswith(end) or any(text.endswith(end) for text in self.ends):
            return
        inside = "".join(thought.pieces[thought.turns[0].start[0] + 1 : thought.turns[0].stop[0]])
        header = layout.pieces[last.start[0]][last.start[1] :]
        if end in inside and header.strip():
            self.message_end = MessageEnd(end, header)
        elif end not in inside:
            self.ends = (*self.ends, end)

    def _check_reasoning(self, question: Message, answer: Message, prompt: str) -> None:
        """Find out whether the template renders reasoning, and whether it keeps `<think>` blocks in the text."""
        if self.drops_reasoning:
            self._block = reasoning_block(prompt)
            return
        closing = ""
        try:
            layout = probe([question, replace(answer, reasoning="Is it?")], self.renderer.safely((), False))
            places = [number for number, slot in enumerate(layout.slots) if slot.field == "reasoning"]
            self.renders_reasoning = bool(places)
            closing = layout.pieces[places[0] + 1] if places else ""
        except (UnsupportedTemplate, PromptError):
            self.renders_reasoning = False
        self._block = reasoning_block(prompt, closing)
        if self.renders_reasoning and self._block is None:  # the prompt has ended the reasoning: none will come
            self.renders_reasoning, self.drops_reasoning = False, True
        elif not self.renders_reasoning:
            text = join_reasoning(replace(answer, reasoning="Is it?"))
            try:
                dropped = text.text not in self.renderer.render([question, text], (), False)
            except PromptError:
                dropped = True
            self.adds_reasoning = dropped and self._block is not None
            self.drops_reasoning = dropped and self._block is None

    def _probe(
        self, messages: Sequence[Message], tools: Sequence[Tool], generation: bool
    ) -> Layout | UnsupportedTemplate:
        render = self.renderer.safely(tools, generation)
        try:
            self.renderer.reject_dropped_tools(messages, tools, generation)
            layout = probe(messages, render)
            return self._with_turns(layout, neutral(messages), tools, generation)
        except UnsupportedTemplate as error:
            return UnsupportedTemplate(error.reason)  # kept: without a traceback, whose frames hold the tokenizer
        except PromptError as refusal:
            return UnsupportedTemplate(refusal.what)

    def _locate(self, messages: Sequence[Message], tools: Sequence[Tool], generation: bool, layout: Layout) -> Layout:
        try:
            found = locate(messages, layout, self.renderer.safely(tools, generation))
            return self._with_turns(found, messages, tools, generation)
        except UnsupportedTemplate as reason:
            raise self._refusal(reason) from None

    def _with_turns(
        self, layout: Layout, messages: Sequence[Message], tools: Sequence[Tool], generation: bool
    ) -> Layout:
        if not generation:
            texts, render = layout.texts(messages), self.renderer.safely(tools, False)
            layout = with_turns(layout, messages, texts, render, self.ending, self.header)
        return without_breaks(layout)

    def _history_turns(
        self, whole: Layout, prompt: Layout, history: Sequence[Message], tools: Sequence[Tool]
    ) -> tuple[Turn, ...]:
        """The turns before a generation prompt: those of the whole conversation where both render them alike."""
        size = len(prompt.slots)
        if whole.slots[:size] == prompt.slots and whole.pieces[:size] == prompt.pieces[:-1]:
            return whole.turns[:-1]
        as_rendered = replace(prompt, pieces=prompt.broken or prompt.pieces, broken=())
        return self._with_turns(as_rendered, self.prepare(history)[0], tools, False).turns

    def _refusal(self, reason: UnsupportedTemplate) -> PromptError:
        special = {key: value for key, value in self.renderer.variables.items() if isinstance(value, str)}
        needs_tools = reason.reason in (NO_TOOLS, NO_TOOL_CALLS)
        names = advice(self.codec, special, tools=needs_tools, without=self.name)
        fix = tr("Choose a template that works with this tokenizer: {names}.", names=names)
        if needs_tools and names:
            fix = tr("Choose a template that renders tools: {names}.", names=names)
        elif needs_tools:
            fix = tr("No template that renders tools fits this tokenizer: remove the tools, or take another model.")
        what = tr("Unsupported template: {reason}.", reason=reason.reason)
        if str(reason.reason).endswith((".", "。")):  # a sentence of its own
            what = tr("Unsupported template: {reason}", reason=reason.reason)
        return PromptError(what, self.name, fix, code="unsupported-template")


def _left_out(messages: Sequence[Message], layout: Layout) -> frozenset[int]:
    rendered = {slot.message for slot in layout.slots if slot.field == "reasoning"}
    return frozenset(n for n, message in enumerate(messages) if message.reasoning and n not in rendered)


def _fullness(text: str | None) -> bool | None:
    return None if text is None else bool(text)
