"""Request schemas: OpenAI's fields, parsed strictly into batch requests."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sartor.base.errors import PromptError
from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Engine
from sartor.inference.requests import Request
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


class TextFormat(_Strict):
    type: Literal["text"]

    def as_schema(self) -> None:
        """No JSON is asked for."""


class JsonObjectFormat(_Strict):
    type: Literal["json_object"]

    def as_schema(self) -> dict[str, Any]:
        return {"type": "object"}


class JsonSchema(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: Annotated[dict[str, JsonValue], Field(alias="schema")] = {}
    strict: bool | None = None


class JsonSchemaFormat(_Strict):
    type: Literal["json_schema"]
    json_schema: JsonSchema

    def as_schema(self) -> dict[str, Any]:
        return dict(self.json_schema.schema_)


ResponseFormat: TypeAlias = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class ToolName(_Strict):
    name: str


class NamedTool(_Strict):
    """The tool that must be called."""

    type: Literal["function"]
    function: ToolName


Finite = Annotated[float, Field(allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]


class GenerationRequest(_Strict):
    """What chat and completion requests have in common."""

    model: str
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
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: str | None = None


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions. Unknown fields are an error."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2048)]
    tools: Annotated[list[ToolIn], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    store: Literal[False] | None = None
    metadata: dict[str, JsonValue] | None = None
    service_tier: str | None = None

    @property
    def wants_calls(self) -> bool:
        """Whether tool calls are parsed from the answer."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def answers(self) -> int:
        return self.n or 1

    def check_tools(self) -> None:
        """Raises: BadRequest for a tool that must be called but is missing."""
        names = [tool.function.name for tool in self.tools or ()]
        if self.tool_choice not in (None, "none", "auto") and not names:
            raise BadRequest("tool_choice needs tools.", "tool_choice")
        if isinstance(self.tool_choice, NamedTool) and (name := self.tool_choice.function.name) not in names:
            raise BadRequest(f"tool_choice names {name!r}, which is not in tools.", "tool_choice")


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
    check_size(size, engine, limits, "messages")
    return size


def check_size(size: int, engine: Engine, limits: Limits, param: str) -> None:
    """Raises: BadRequest for so many characters that they cannot fit."""
    room = room_for_prompt(engine, limits)
    if size > room * limits.characters_per_token:
        raise BadRequest(
            f"The prompt has {size} characters; the maximum is {room} tokens "
            f"of at most {limits.characters_per_token} characters on average.",
            param,
            "context_length_exceeded",
        )


def check_choices(request: GenerationRequest, limits: Limits) -> None:
    """Raises: BadRequest for too many."""
    if (request.n or 1) > limits.choices:
        raise BadRequest(f"n is {request.n}; this server returns at most {limits.choices} choices.", "n")


def check_prompt_tokens(count: int, engine: Engine, limits: Limits, param: str) -> None:
    """Raises: BadRequest for too many."""
    room = room_for_prompt(engine, limits)
    if count > room:
        raise BadRequest(f"The prompt has {count} tokens; the maximum is {room}.", param, "context_length_exceeded")


def batch_requests(
    chat_request: ChatRequest, engine: Engine, weights: WeightSet, default: GenerationSettings, limits: Limits
) -> list[Request]:
    """One batch request for each choice, without a grammar. Raises: BadRequest naming the field."""
    check_choices(chat_request, limits)
    chat_request.check_tools()
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
    check_prompt_tokens(len(prompt), engine, limits, "messages")
    top = (chat_request.top_logprobs or 0) if chat_request.logprobs else None
    return make_requests(chat_request, prompt, engine, weights, default, limits, top)


# What all requests are made from.
def make_requests(
    request: GenerationRequest,
    prompt: Sequence[int],
    engine: Engine,
    weights: WeightSet,
    default: GenerationSettings,
    limits: Limits,
    top_logprobs: int | None,
) -> list[Request]:
    """One for each choice, all with the same prompt."""
    generation = _generation(request, default, limits, len(prompt), engine)
    seed = secrets.randbits(62) if request.seed is None else request.seed % 2**63
    return [
        Request(
            tuple(prompt),
            generation,
            weights,
            seed,
            number,
            top_logprobs,
            request.presence_penalty or 0.0,
            request.frequency_penalty or 0.0,
        )
        for number in range(request.n or 1)
    ]


def _generation(
    chat_request: GenerationRequest, default: GenerationSettings, limits: Limits, prompt_tokens: int, engine: Engine
) -> GenerationSettings:
    """The server's settings, overridden by the request."""
    most = min(limits.answer_tokens, engine.context_tokens - prompt_tokens)
    length = getattr(chat_request, "max_completion_tokens", None) or chat_request.max_tokens
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
