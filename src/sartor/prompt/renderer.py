"""Renders messages by a template's source, within its budget, and finds out how the template wants tool calls."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sartor.base.errors import PromptError
from sartor.base.i18n import tr
from sartor.base.types import Message, Tool
from sartor.prompt.layout import Render, UnsupportedTemplate, neutral
from sartor.prompt.messages import MessageForm, to_jinja
from sartor.prompt.tokenizer import Codec
from sartor.prompt.tool_calls import CallStyle, find_style, mark_names
from sartor.prompt.turn_ends import AddedEnds

NO_TOOLS, NO_TOOL_CALLS = tr("it does not render tools"), tr("it does not render tool calls")
TODAY = datetime(2024, 7, 26)
"""What `strftime_now` gives templates, so that a run does not depend on the day. Llama 3.1's own fallback date."""
MARK_OF_A_CALL = "sartorcall"
MAX_REASON = 500
"""Characters of a template's own error message that are kept: it may quote the conversation."""


class Renderer:
    """A template's source with its variables. What it leaves open at the end of an answer is added (`added`)."""

    def __init__(
        self, name: str, source: str, codec: Codec, variables: Mapping[str, Any], *, content_parts: bool = False
    ) -> None:
        self.name, self.source, self.codec = name, source, codec
        self.variables = {**variables, "strftime_now": TODAY.strftime}
        self.form = MessageForm(content_parts=content_parts)
        """How this template reads messages without tool calls."""
        self.added = AddedEnds()

    def render(
        self, messages: Iterable[Message], tools: Sequence[Tool], generation: bool, form: MessageForm | None = None
    ) -> str:
        from sartor.prompt.template_budget import OverBudget
        from sartor.prompt.template_environment import render

        messages = list(messages)
        if form is None:
            form = self.calls.form if any(message.tool_calls for message in messages) else self.form
        values = {
            "messages": [to_jinja(message, form) for message in messages],
            "tools": list(tools) or None,
            "documents": None,
            "add_generation_prompt": generation,
            **self.variables,
        }
        template = self._compiled
        try:
            text = render(template, values)
            return text if generation else text + self.added.of(messages)
        except OverBudget as error:
            raise self._too_costly(error) from None
        except Exception as error:  # a template is a program from elsewhere: whatever it raises is its refusal
            reason = (str(error) or type(error).__name__)[:MAX_REASON]  # the error itself holds the whole conversation
            raise PromptError("The template rejects the conversation: {reason}", self.name, reason=reason) from None

    def try_render(
        self, messages: Sequence[Message], tools: Sequence[Tool], generation: bool, form: MessageForm | None = None
    ) -> str | None:
        """The rendering, or None if the template rejects the conversation."""
        try:
            return self.render(messages, tools, generation, form)
        except PromptError:
            return None

    def safely(self, tools: Sequence[Tool], generation: bool) -> Render:
        """A renderer that breaks control-token strings in tools and calls, so that they stay plain text."""
        safe = self.codec.broken(tools)
        return lambda messages, prompt: self.render(
            [self._safe_calls(message) for message in messages], safe, generation or prompt
        )

    def _safe_calls(self, message: Message) -> Message:
        safe = self.codec.broken
        if message.tool_call_id or message.name:
            message = replace(message, tool_call_id=safe(message.tool_call_id), name=safe(message.name))
        if not message.tool_calls:
            return message
        calls = (replace(c, name=safe(c.name), arguments=safe(c.arguments), id=safe(c.id)) for c in message.tool_calls)
        return replace(message, tool_calls=tuple(calls))

    @functools.cached_property
    def calls(self) -> CallStyle:
        """How this template wants tool calls."""
        return find_style(lambda messages, tools, form: self.try_render(messages, tools, False, form), self.form)

    def reject_dropped_tools(self, messages: Sequence[Message], tools: Sequence[Tool], generation: bool) -> None:
        """Reject a template that drops tools or tool calls: answers would be trained on without their context.

        A template that rejects a conversation without them does look at them.
        """
        plain = neutral(messages)
        whole = self.render(plain, tools, generation)
        if tools and whole == self.try_render(plain, (), generation):
            raise UnsupportedTemplate(NO_TOOLS)
        marked, marks = mark_names(plain, MARK_OF_A_CALL)
        if not marks:
            return
        called = [m if m.tool_calls else before for m, before in zip(self.calls.complete(marked), plain)]
        text = self.try_render(called, tools, generation)
        if text is None:  # it accepts no other names
            without = [replace(message, tool_calls=()) for message in plain]
            dropped = whole == self.try_render(without, tools, generation)
        else:
            dropped = not any(mark in text for mark in marks)
            if not dropped and not all(mark in text for mark in marks):
                raise UnsupportedTemplate(tr("it renders only some of the tool calls of a turn"))
        if dropped:
            raise UnsupportedTemplate(NO_TOOL_CALLS)

    @functools.cached_property
    def _compiled(self) -> Any:
        import jinja2

        from sartor.prompt.template_budget import OverBudget
        from sartor.prompt.template_environment import compiled

        try:
            return compiled(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise PromptError(
                "Jinja syntax error in the template: {reason}", f"{self.name}, line {error.lineno}", reason=error
            ) from None
        except OverBudget as error:
            raise self._too_costly(error) from None
        except Exception as error:  # nested too deep for the parser or for Python's compiler
            reason = (str(error) or type(error).__name__)[:MAX_REASON]
            raise PromptError("The template cannot be compiled: {reason}.", self.name, reason=reason) from None

    def _too_costly(self, error: Exception) -> PromptError:
        return PromptError(
            "The template does too much work for one conversation: {reason}.",
            self.name,
            "Choose a named template, for example template=chatml.",
            code="template-too-costly",
            reason=str(error),
        )
