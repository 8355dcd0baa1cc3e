"""What inference sees and a vendor's template then writes, by transformers alone: the reference of what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from transformers.utils import chat_template_utils

from sartor.base.types import Message, Skipped, TokenSequence, Tool


def dicts(messages: Sequence[Message], *, as_text: bool = False) -> list[dict[str, Any]]:
    """The messages as transformers takes them; with `as_text`, reasoning is written into the content."""
    found = []
    for message in messages:
        entry: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.reasoning and as_text:
            entry["content"] = f"<think>\n{message.reasoning}\n</think>\n\n{message.text}"
        elif message.reasoning:
            entry["reasoning_content"] = entry["thinking"] = message.reasoning
        if message.tool_calls:
            entry["tool_calls"] = [
                {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
                for call in message.tool_calls
            ]
        found.append(entry)
    return found


def inference_view(
    tokenizer: Any, messages: Sequence[Message], answer: int, tools: Sequence[Tool], **options: Any
) -> tuple[str, str]:
    """The prompt before message `answer`, and the conversation up to it, both as the template renders them."""
    as_text = options.pop("as_text", False)
    given = {**tokenizer.special_tokens_map, "tools": list(tools) or None, **options}
    given |= {"documents": None, "strftime_now": datetime(2024, 7, 26).strftime}
    template = chat_template_utils._compile_jinja_template(tokenizer.chat_template)
    before, after = dicts(messages[:answer], as_text=as_text), dicts(messages[: answer + 1], as_text=as_text)
    prompt = template.render(messages=before, add_generation_prompt=True, **given)
    return prompt, template.render(messages=after, add_generation_prompt=False, **given)


def learned(tokenizer: Any, outcomes: Sequence[Any]) -> list[tuple[str, str]]:
    """The text before each learned part, and that part, over all sequences of a row. Raises for a skipped row."""
    found = []
    for sequence in outcomes:
        assert not isinstance(sequence, Skipped), sequence.reason
        assert isinstance(sequence, TokenSequence)
        ids = sequence.ids.tolist()
        found += [(tokenizer.decode(ids[:a]), tokenizer.decode(ids[a:b])) for a, b in sequence.label_spans]
    return found
