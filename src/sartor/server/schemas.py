"""Request schemas: OpenAI's fields, parsed strictly into batch requests."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sartor.base.errors import PromptError
from sartor.base.settings import GenerationSettings
from sartor.inference.batcher import Request
from sartor.inference.engine import Engine
from sartor.inference.weights import WeightSet


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for one request, and for all together."""

    body_bytes: int = 1 << 20
    prompt_tokens: int = 8192
    characters_per_token: int = 16
    """A prompt with more characters for each token of room is refused unread; English has four to five."""
    answer_tokens: int = 4096
    choices: int = 8
    waiting: int = 256
    rows: int = 64
    retry_after_s: int = 5


class BadRequest(Exception):
    """An invalid request: `status` is 400 or 404, `param` names the field."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class FunctionCall(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str
    arguments: str


class ToolCallIn(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(BaseModel):
    """One message; fields that a text model cannot use (a refusal, audio) are ignored."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCallIn] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class Function(_Strict):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class ToolIn(_Strict):
    type: Literal["function"]
    function: Function


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ResponseFormat(_Strict):
    type: Literal["text"]


Finite = Annotated[float, Field(allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]


class ChatRequest(_Strict):
    """POST /v1/chat/completions. Unknown fields are an error."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2048)]
    tools: Annotated[list[ToolIn], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    temperature: Annotated[Finite, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[Finite, Field(ge=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    repetition_penalty: Annotated[Finite, Field(gt=0.0, le=10.0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    store: Literal[False] | None = None
    metadata: dict[str, JsonValue] | None = None
    service_tier: str | None = None

    @property
    def wants_calls(self) -> bool:
        """Whether tool calls are parsed from the answer."""
        return bool(self.tools) and self.tool_choice != "none"


def room_for_prompt(engine: Engine, limits: Limits) -> int:
    """The most tokens that a prompt may have, so that at least one more fits into the context."""
    return min(engine.context_tokens - 1, limits.prompt_tokens)


def prompt_size(chat_request: ChatRequest, engine: Engine, limits: Limits) -> int:
    """The characters of a request's prompt. Raises: BadRequest if they cannot fit, before any of them is tokenized."""
    texts = [part.text for m in chat_request.messages if isinstance(m.content, list) for part in m.content]
    texts += [m.content for m in chat_request.messages if isinstance(m.content, str)]
    texts += [m.reasoning_content for m in chat_request.messages if m.reasoning_content]
    calls = [call.function for m in chat_request.messages for call in m.tool_calls or ()]
    texts += [text for call in calls for text in (call.name, call.arguments)]
    size = sum(map(len, texts)) + (
        sum(len(tool.model_dump_json()) for tool in chat_request.tools or ()) if chat_request.wants_calls else 0
    )
    room = room_for_prompt(engine, limits)
    if size > room * limits.characters_per_token:
        raise BadRequest(
            f"The prompt has {size} characters; the maximum is {room} tokens "
            f"of at most {limits.characters_per_token} characters on average.",
            "messages",
            "context_length_exceeded",
        )
    return size


def batch_requests(
    chat_request: ChatRequest, engine: Engine, weights: WeightSet, default: GenerationSettings, limits: Limits
) -> list[Request]:
    """One batch request for each choice. Raises: BadRequest naming the field."""
    n = chat_request.n or 1
    if n > limits.choices:
        raise BadRequest(f"n is {n}; this server returns at most {limits.choices} choices.", "n")
    if chat_request.top_logprobs is not None and not chat_request.logprobs:
        raise BadRequest("top_logprobs needs logprobs: true.", "top_logprobs")
    tools = (
        [tool.model_dump(exclude_none=True) for tool in chat_request.tools or ()] if chat_request.wants_calls else []
    )
    messages = [message.model_dump(exclude_none=True) for message in chat_request.messages]
    try:
        prompt = engine.prompt(messages, tools).ids.tolist()
    except PromptError as error:
        raise BadRequest(" ".join(str(part) for part in (error.what, error.fix) if part), "messages") from None
    room = room_for_prompt(engine, limits)
    if len(prompt) > room:
        raise BadRequest(
            f"The prompt has {len(prompt)} tokens; the maximum is {room}.",
            "messages",
            "context_length_exceeded",
        )
    generation = _generation(chat_request, default, limits, len(prompt), engine)
    seed = secrets.randbits(62) if chat_request.seed is None else chat_request.seed % 2**63
    top = (chat_request.top_logprobs or 0) if chat_request.logprobs else None
    return [
        Request(
            tuple(prompt),
            generation,
            weights,
            seed,
            number,
            top,
            chat_request.presence_penalty or 0.0,
            chat_request.frequency_penalty or 0.0,
        )
        for number in range(n)
    ]


def _generation(
    chat_request: ChatRequest, default: GenerationSettings, limits: Limits, prompt_tokens: int, engine: Engine
) -> GenerationSettings:
    """The server's settings, overridden by the request."""
    most = min(limits.answer_tokens, engine.context_tokens - prompt_tokens)
    length = chat_request.max_completion_tokens or chat_request.max_tokens
    if length is not None and length > limits.answer_tokens:
        raise BadRequest(f"max_tokens is {length}; the maximum is {limits.answer_tokens}.", "max_tokens")
    changed: dict[str, Any] = {"max_new_tokens": max(1, min(length or default.max_new_tokens, most))}
    if chat_request.temperature is not None:
        changed |= {"temperature": chat_request.temperature, "do_sample": chat_request.temperature > 0}
    for name in ("top_p", "top_k", "repetition_penalty"):
        if (value := getattr(chat_request, name)) is not None:
            changed[name] = value
    if chat_request.stop is not None:
        changed["stop"] = (chat_request.stop,) if isinstance(chat_request.stop, str) else tuple(chat_request.stop)
    return default.model_copy(update=changed)
