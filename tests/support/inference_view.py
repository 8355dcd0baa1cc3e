"""What inference sees and a vendor's template then writes, by transformers alone: the reference of what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from transformers.utils import chat_template_utils

from sartor.base.types import Message, Skipped, TokenSequence, Tool
from sartor.prompt.messages import to_jinja
from sartor.prompt.template import Template


def inference_view(
    tokenizer: Any, template: Template, messages: Sequence[Message], answer: int, tools: Sequence[Tool]
) -> tuple[str, str]:
    """The prompt before message `answer`, and the conversation up to it, both as transformers renders the template."""

    def rendered(turns: Sequence[Message], generation: bool) -> str:
        form = template.renderer.calls.form if any(turn.tool_calls for turn in turns) else template.renderer.form
        jinja = chat_template_utils._compile_jinja_template(template.source)
        return str(
            jinja.render(
                messages=[to_jinja(turn, form) for turn in template.prepare(turns)[0]],
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=generation,
                strftime_now=datetime(2024, 7, 26).strftime,
                **tokenizer.special_tokens_map,
            )
        )

    return rendered(messages[:answer], True), rendered(messages[: answer + 1], False)


def learned(tokenizer: Any, outcomes: Sequence[Any]) -> list[tuple[str, str]]:
    """The text before each learned part, and that part, over all sequences of a row. Raises for a skipped row."""
    found = []
    for sequence in outcomes:
        assert not isinstance(sequence, Skipped), sequence.reason
        assert isinstance(sequence, TokenSequence)
        ids = sequence.ids.tolist()
        found += [(tokenizer.decode(ids[:a]), tokenizer.decode(ids[a:b])) for a, b in sequence.label_spans]
    return found
