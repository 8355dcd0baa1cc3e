"""The older API without messages: a prompt as text or token ids, exactly as given, and what the model adds to it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Answer, Engine
from sartor.inference.grammars import Grammars
from sartor.inference.requests import Progress, Request, TokenLogprobs
from sartor.inference.weights import WeightSet
from sartor.server.schemas import (
    BadRequest,
    GenerationRequest,
    Limits,
    check_choices,
    check_prompt_tokens,
    check_size,
    make_requests,
)

DEFAULT_TOKENS = 16
"""OpenAI's default of `max_tokens` here."""
TokenId = Annotated[int, Field(ge=0)]
Texts = Annotated[list[str], Field(min_length=1, max_length=256)]
Ids = Annotated[list[TokenId], Field(min_length=1)]


class CompletionRequest(GenerationRequest):
    """POST /v1/completions. Unknown fields are an error."""

    prompt: str | Texts | Ids | Annotated[list[Ids], Field(min_length=1, max_length=256)]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    suffix: Literal[""] | None = None
    best_of: Literal[1] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each a text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if isinstance(self.prompt[0], int) else list(self.prompt)

    @property
    def answers(self) -> int:
        return len(self.prompts) * (self.n or 1)


def prompt_size(request: CompletionRequest, engine: Engine, limits: Limits) -> int:
    """The characters (or ids) of the prompts. Raises: BadRequest if one cannot fit, before it is tokenized."""
    if request.answers > limits.waiting:
        raise BadRequest(f"n × prompts is {request.answers}; this server returns at most {limits.waiting}.", "prompt")
    for prompt in request.prompts:
        check_size(len(prompt), engine, limits, "prompt")
    return sum(map(len, request.prompts))


# What all requests are made from.
def batch_requests(
    request: CompletionRequest,
    engine: Engine,
    weights: WeightSet,
    default: GenerationSettings,
    limits: Limits,
    grammars: Grammars,
) -> list[Request]:
    """One batch request for each choice of each prompt. Raises: BadRequest naming the field."""
    check_choices(request, limits)
    if request.echo and request.logprobs is not None:
        raise BadRequest("echo with logprobs is not supported.", "echo")
    default = default.model_copy(update={"max_new_tokens": DEFAULT_TOKENS})
    found: list[Request] = []
    for prompt in request.prompts:
        ids = _ids(prompt, engine)
        check_prompt_tokens(len(ids), engine, limits, "prompt")
        found += make_requests(request, ids, engine, weights, default, limits, request.logprobs)
    return found


def _ids(prompt: str | list[int], engine: Engine) -> list[int]:
    """The prompt's tokens. What looks like a control token is one: who sends a prompt has rendered it."""
    if isinstance(prompt, str):
        ids: list[int] = engine.tokenizer(prompt)["input_ids"]
        if not ids:
            raise BadRequest("The prompt has no tokens.", "prompt")
        return ids
    vocabulary = int(engine.model.get_input_embeddings().num_embeddings)
    if (unknown := max(prompt)) >= vocabulary:
        raise BadRequest(f"Token {unknown} is not in the vocabulary of {vocabulary}.", "prompt")
    return prompt


@dataclass(slots=True)
class TextReply:
    """One request's answers in progress; `name` is the model name that the client used."""

    request: CompletionRequest
    name: str
    engine: Engine
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    answers: dict[int, Answer] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    tokens: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)
    """Choice → characters already sent."""

    def take(self, index: int, progress: Progress) -> None:
        """Keep what a step brought."""
        if progress.token is not None:
            self.tokens.setdefault(index, []).append(progress.token)
        if len(progress.text) > len(self.texts.get(index, "")):
            self.texts[index] = progress.text
        if progress.answer is not None:
            self.texts[index], self.answers[index] = progress.text, progress.answer

    def whole(self) -> dict[str, Any]:
        """The text_completion object."""
        choices = [
            self._choice(index, self._echo(index) + self.texts[index], self.tokens.get(index, ()), self._finish(index))
            for index in sorted(self.answers)
        ]
        return {**self._head(), "choices": choices, "usage": self.usage()}

    def pieces(self, index: int, progress: Progress) -> list[dict[str, Any]]:
        """The chunks for one step of a choice; often none."""
        self.take(index, progress)
        first = index not in self.sent
        text, before = self.texts.get(index, ""), self.sent.setdefault(index, 0)
        self.sent[index] = max(before, len(text))
        delta = (self._echo(index) if first else "") + text[before:]
        chosen = [progress.token] if progress.token is not None else []
        done = progress.answer is not None
        if not (delta or chosen or done):
            return []
        return [
            {**self._head(), "choices": [self._choice(index, delta, chosen, self._finish(index) if done else None)]}
        ]

    def usage(self) -> dict[str, Any]:
        n = self.request.n or 1
        prompt = sum(answer.prompt_tokens for index, answer in self.answers.items() if index % n == 0)
        written = sum(answer.tokens for answer in self.answers.values())
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def usage_chunk(self) -> dict[str, Any]:
        return {**self._head(), "choices": [], "usage": self.usage()}

    def _head(self) -> dict[str, Any]:
        head = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.name}
        if self.answers:
            head["system_fingerprint"] = f"fp_{next(iter(self.answers.values())).fingerprint}"
        return head

    def _choice(self, index: int, text: str, tokens: Sequence[TokenLogprobs], finish: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": self._logprobs(tokens), "finish_reason": finish}

    def _finish(self, index: int) -> str:
        return "stop" if self.answers[index].stop_reason == "stop" else "length"

    def _echo(self, index: int) -> str:
        prompt = self.request.prompts[index // (self.request.n or 1)] if self.request.echo else ""
        return prompt if isinstance(prompt, str) else self.engine.tokenizer.decode(prompt)

    def _logprobs(self, tokens: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
        if self.request.logprobs is None or not tokens:
            return None
        decode = self.engine.tokenizer.decode
        words = [decode([token.id]) for token in tokens]
        return {
            "tokens": words,
            "token_logprobs": [max(token.logprob, -9999.0) for token in tokens],
            "top_logprobs": [{decode([id]): max(value, -9999.0) for id, value in token.top} for token in tokens],
            "text_offset": [sum(map(len, words[:place])) for place in range(len(words))],
        }
