"""Reads what a model generated as its template would have written it: reasoning, text and tool calls.

Most templates write `<think>…</think>` and then the text, which is also how an answer is kept here. Others write
headers of control tokens and words, which are no part of a text: gpt-oss `<|channel|>final<|message|>`, Gemma 4
`<|channel>thought`. Others begin the reasoning in the generation prompt, so that an answer only closes it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sartor.base.errors import PromptError
from sartor.base.types import Message, Tool, ToolCall
from sartor.prompt.call_frame import sample_tools
from sartor.prompt.call_reader import CallReader, find_reader
from sartor.prompt.template import Template
from sartor.prompt.turn_ends import ANSWER, QUESTION

OPEN, CLOSE = "<think>", "</think>"
THOUGHT = "sartorthought"


class AnswerReader:
    """Reads the answers of a model with one template.

    `response_template` is transformers' description of answers, which some models bring.
    """

    def __init__(self, template: Template, response_template: Mapping[str, Any] | None = None) -> None:
        self.template = template
        added = template.codec.backend.get_added_tokens_decoder().values()
        special = [token.content for token in added if token.special and token.content]
        self._response_template = dict(response_template) if response_template else None
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
        plain = self._turn([QUESTION, ANSWER]) or ""
        thought = self._turn([QUESTION, replace(ANSWER, reasoning=THOUGHT)]) or ""
        self._head = plain.partition(ANSWER.text)[0]
        self._opening, self._closing = "", ""
        if THOUGHT in thought and (rest := thought.partition(THOUGHT)[2].partition(ANSWER.text))[1]:
            self._opening, self._closing = thought.partition(THOUGHT)[0], rest[0]
        written = "".join(self._special.sub("", part) for part in (self._head, self._opening, self._closing))
        self.has_headers = bool(written.replace(OPEN, "").replace(CLOSE, "").strip())
        """Whether answers contain words that are no part of their text."""
        self.opened = template.header.rstrip().endswith(OPEN)
        """Whether the generation prompt already began the reasoning."""

    @functools.cached_property
    def _calls(self) -> CallReader | None:
        tools = sample_tools()
        ends = [self.template.codec.scan(end)[-1].content for end in self.template.ends]
        return find_reader(lambda messages: self._turn(messages, tools) or self._turn(messages), ends, tools)

    @property
    def reads_calls(self) -> bool:
        """Whether the calls of this template can be read back."""
        return self._calls is not None

    def read_calls(self, written: str, tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
        """The text beside an answer's calls, and its calls of these tools. `written` has its control tokens.

        The model's own response template reads them if it has one, else what is found from its chat template.
        """
        rest, calls = self._by_response_template(written, tools)
        if not calls and self._calls is not None:
            rest, calls = self._calls.read(written, tools)
        shown = rest if self.has_headers else self._special.sub("", rest)
        return self.text(shown, whole=True), calls

    def _by_response_template(self, written: str, tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
        if self._response_template is None:
            return written, []
        from transformers.utils.chat_parsing import parse_response

        known = {str(tool.get("function", tool).get("name")) for tool in tools}
        try:
            parsed = parse_response(
                written, self._response_template, prefix=self.template.header, tools=[dict(tool) for tool in tools]
            )
            functions = [call["function"] for call in parsed.get("tool_calls") or ()]
            calls = [ToolCall(function["name"], dict(function["arguments"])) for function in functions]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return written, []  # no answer in that form, or a response template that is wrong
        return (str(parsed.get("content") or ""), calls) if known.issuperset(c.name for c in calls) else (written, [])

    def text(self, written: str, *, whole: bool) -> str:
        """The text to show, reasoning in `<think>`; `written` has its control tokens if `has_headers`.

        Unless `whole`, more may follow: what is returned for a longer text then begins with this one.
        """
        if self.has_headers:
            return self._without_headers(written)
        if not self.opened or written.lstrip().startswith(OPEN) or (whole and CLOSE not in written):
            return written
        return f"{OPEN}\n" + written.lstrip("\n") if written.strip() else ""

    def _without_headers(self, written: str) -> str:
        opening, closing, head = self._opening.lstrip(), self._closing.strip(), self._head.lstrip()
        text = written.lstrip()
        if opening and text.startswith(opening):
            mark = next(iter(self.template.codec.scan(closing)), None)
            first = closing[: mark.stop] if mark else closing
            thought, closed, rest = text[len(opening) :].partition(first)
            if not closed:
                return f"{OPEN}\n{thought}"
            answer = rest.removeprefix(closing[len(first) :]) if rest.startswith(closing[len(first) :]) else ""
            answer = answer or ("" if closing[len(first) :].startswith(rest) else rest)
            return f"{OPEN}\n{thought}\n{CLOSE}\n\n" + self._special.sub("", answer).lstrip("\n")
        if head and text.startswith(head):
            return self._special.sub("", text[len(head) :])
        if text and any(part.startswith(text) for part in (opening, head)):
            return ""
        return self._special.sub("", written)

    def _turn(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str | None:
        """What a model would have to generate for the last message, with its end; None where that is rejected."""
        try:
            layout = self.template.lay_out(messages, tools).layout
        except PromptError:
            return None
        texts = layout.texts(messages)
        turn = layout.turns[-1]
        (first, start), (last, stop) = turn.start, turn.stop
        cut = (
            token.start for token in self.template.codec.scan(layout.pieces[first]) if token.start < start < token.stop
        )
        start = next(cut, start)
        if first == last:
            return layout.pieces[first][start:stop]
        middle = (part for n in range(first + 1, last) for part in (layout.pieces[n], texts[n]))
        return "".join([layout.pieces[first][start:], texts[first], *middle, layout.pieces[last][:stop]])
