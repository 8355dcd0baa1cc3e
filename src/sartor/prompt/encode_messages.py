"""`sartor.encode`: messages as the token ids and label spans that the trainer would get from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

from sartor.base.errors import PromptError
from sartor.base.i18n import tr
from sartor.base.settings import PromptSettings
from sartor.base.types import Demonstration, Encoded, Message, Origin, Skipped, TokenSequence, Tool
from sartor.prompt.encode import Encoder
from sartor.prompt.history import History
from sartor.prompt.label_spans import SpanEncoder
from sartor.prompt.messages import message_of
from sartor.prompt.template import Template
from sartor.prompt.template_source import template_source
from sartor.prompt.tokenizer import Tokenizer, control_token_state

HistoryMode = Literal["split", "last", "as_rendered"]


# The keywords are the public API.
def encode(
    messages: Iterable[Message | Mapping[str, Any]],
    tokenizer: Tokenizer,
    tools: Sequence[Tool] | None = None,
    template: str | Template | None = None,
    *,
    enable_thinking: bool | None = None,
    mask_history: bool = False,
    train_on_prompt: bool = False,
    history: HistoryMode = "split",
) -> TokenSequence:
    """Encode messages (or OpenAI-style dicts) as token ids and label spans, exactly as the trainer does.

    `template` is a name, a Template, or None for the model's own. Nothing is truncated. The template is analyzed on the
    first call and then kept with the tokenizer (bench/encode.py measures both).
    Raises: PromptError if there is nothing to train on, the template cannot render the messages, or it renders earlier
    answers otherwise, so that they become several sequences: `encode_sequences` returns all of them.

    Example:
        >>> from transformers import AutoTokenizer
        >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        >>> encoded = sartor.encode(turns, AutoTokenizer.from_pretrained(model))
        >>> 0 < encoded.label_tokens < len(encoded)
        True
    """
    settings = PromptSettings(
        mask_history=mask_history, train_on_prompt=train_on_prompt, history=history, cutoff_len=1 << 40
    )
    outcome = _encoder(tokenizer, template, enable_thinking, settings).encode(_example(messages, tools))
    return _usable(outcome)


def encode_sequences(
    messages: Iterable[Message | Mapping[str, Any]],
    tokenizer: Tokenizer,
    tools: Sequence[Tool] | None = None,
    template: str | Template | None = None,
    *,
    enable_thinking: bool | None = None,
    mask_history: bool = False,
    train_on_prompt: bool = False,
) -> tuple[TokenSequence, ...]:
    """Encode messages as `encode` does, as all the sequences that the trainer makes of them.

    They are several where the template renders earlier answers otherwise than when they were the last, usually without
    their reasoning: then each answer, or each group that shares its prompts, has one.
    Raises: PromptError if there is nothing to train on, or the template cannot render the messages.

    Example:
        >>> from transformers import AutoTokenizer
        >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        >>> len(sartor.encode_sequences(turns, AutoTokenizer.from_pretrained(model)))
        1
    """
    settings = PromptSettings(mask_history=mask_history, train_on_prompt=train_on_prompt, cutoff_len=1 << 40)
    outcomes = _encoder(tokenizer, template, enable_thinking, settings).sequences(_example(messages, tools))
    return tuple(_usable(outcome) for outcome in outcomes)


def _encoder(
    tokenizer: Tokenizer, template: str | Template | None, enable_thinking: bool | None, settings: PromptSettings
) -> Encoder:
    if isinstance(template, Template):
        return Encoder(tokenizer, template, settings)
    spans, history = _analyzed_template(tokenizer, template, enable_thinking)
    return Encoder(tokenizer, spans.template, settings, spans, history)


def _example(messages: Iterable[Message | Mapping[str, Any]], tools: Sequence[Tool] | None) -> Demonstration:
    parsed = tuple(message_of(message) for message in messages)
    return Demonstration(parsed, Origin("messages", "messages", 1), tuple(tools or ()))


def _usable(outcome: Encoded | Skipped) -> TokenSequence:
    if isinstance(outcome, Skipped):
        raise PromptError(outcome.reason, tr("messages"), outcome.fix, code=outcome.code)
    assert isinstance(outcome, TokenSequence)
    return replace(outcome, origin=None)


@dataclass(slots=True)
class _AnalyzedTemplates:
    """The templates analyzed for one tokenizer, as long as its control tokens do not change."""

    control_tokens: object
    by_settings: dict[tuple[str | None, str, bool | None], tuple[SpanEncoder, History]]


_ANALYZED: WeakKeyDictionary[Tokenizer, _AnalyzedTemplates] = WeakKeyDictionary()
"""Values must not reference their tokenizer (these do not), or it would never be freed."""
MAX_ANALYZED_TEMPLATES = 16
"""Per tokenizer; for programs that try many templates."""


def _analyzed_template(
    tokenizer: Tokenizer, name: str | None, enable_thinking: bool | None
) -> tuple[SpanEncoder, History]:
    """What is known about a template, kept with the tokenizer until its control tokens or the template change."""
    control_tokens = control_token_state(tokenizer)
    kept = _ANALYZED.get(tokenizer)
    if kept is None or kept.control_tokens != control_tokens or len(kept.by_settings) >= MAX_ANALYZED_TEMPLATES:
        kept = _ANALYZED[tokenizer] = _AnalyzedTemplates(control_tokens, {})
    key = (name, template_source(tokenizer, name), enable_thinking)
    if key not in kept.by_settings:
        template = Template.from_tokenizer(tokenizer, name, enable_thinking=enable_thinking)
        kept.by_settings[key] = SpanEncoder(template), History(template)
    return kept.by_settings[key]
