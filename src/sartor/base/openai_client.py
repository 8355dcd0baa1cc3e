"""A client for OpenAI-compatible chat endpoints: addresses, keys, request bodies, answers, errors and retries."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from sartor.base.errors import ConfigError, EndpointError
from sartor.base.i18n import Text, tr
from sartor.base.settings import GenerationSettings
from sartor.base.types import Completion, Message, StopReason, Tool

ATTEMPTS = 5
MAX_WAIT_S = 60.0
"""No single wait between two attempts is longer, whatever Retry-After says."""
BUSY_STATUSES = frozenset((408, 409, 425, 429))
"""Worth another attempt, as is every status from 500."""
TIMEOUT = httpx.Timeout(120.0, connect=10.0)
MAX_RESPONSE_BYTES = 16_000_000
MAX_STREAM_CHARACTERS = 2_000_000
"""A longer streamed answer is cut off, as if by its token limit."""
ERROR_CHARACTERS = 300
"""Characters of an error response that its message quotes."""
STOP_REASONS: Mapping[str, StopReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "function_call": "stop",
}


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint's base URL, which usually ends in /v1, and the model to use there."""

    url: str
    model: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """`http://host:port/v1#model`. Raises: ConfigError without a model or for a malformed URL."""
        url, _, model = text.partition("#")
        if not model:
            raise ConfigError(
                "The address names no model.", text, "Add it after a #, as in http://host:port/v1#my-model."
            )
        check_url(url)
        return cls(url, model)

    @property
    def completions_url(self) -> str:
        return f"{self.url.rstrip('/')}/chat/completions"


def check_url(url: str) -> None:
    """Raises: ConfigError unless it is an http(s) URL with a host and without a user name or password."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and not (parts.username or parts.password)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            "Not an endpoint address.", url, "Use the form https://HOST/v1, without a user name or password."
        )


def read_key(url: str, key_env: str | None) -> str | None:
    """The API key in the environment variable `key_env`; None where no variable is named.

    Raises: ConfigError when the variable is not set, or when the key would leave this machine unencrypted.
    """
    if not key_env:
        return None
    if not (key := os.environ.get(key_env)):
        raise ConfigError("The environment variable {name} is not set.", url, "Set it: export {name}=…", name=key_env)
    parts = urlsplit(url)
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise ConfigError("The API key would be sent unencrypted.", url, "Use an https address, or no key.")
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What a request holds besides its messages; None leaves the choice to the server."""

    max_tokens: int = 1024
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    thinking: bool | None = None
    tools: tuple[Tool, ...] = ()

    @classmethod
    def from_settings(
        cls,
        generation: GenerationSettings,
        *,
        seed: int | None = None,
        thinking: bool | None = None,
        tools: Sequence[Tool] = (),
    ) -> RequestOptions:
        """Temperature 0 where nothing is sampled; top_k and repetition_penalty are not part of the protocol."""
        sampled = generation.do_sample
        return cls(
            max_tokens=generation.max_new_tokens,
            temperature=generation.temperature if sampled else 0,
            top_p=generation.top_p if sampled else None,
            seed=seed,
            thinking=thinking,
            tools=tuple(tools),
        )

    def body(self, model: str, messages: Sequence[Message], *, stream: bool = False) -> dict[str, Any]:
        """The JSON of a chat completion request; `thinking` is sent as vLLM and SGLang expect it."""
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": message.text} for message in messages],
            "max_tokens": self.max_tokens,
            **{name: value for name, value in sampling.items() if value is not None},
        }
        if stream:
            body["stream"] = True
        if self.tools:
            body["tools"] = [
                tool if "function" in tool else {"type": "function", "function": tool} for tool in self.tools
            ]
        if self.thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": self.thinking}
        return body


class RequestError(EndpointError):
    """One request failed; `code` says how.

    endpoint-unreachable: no connection, or no answer in time. endpoint-busy: a status that asks for another attempt.
    endpoint-refused: any other status. endpoint-no-completion: the response is not a chat completion.
    endpoint-stream: the server reported an error in the middle of its answer.
    """

    def __init__(
        self,
        what: str | Text,
        where: object = "",
        fix: str | Text = "",
        *,
        retryable: bool = False,
        retry_after_s: float = 0.0,
        maybe_billed: bool = False,
        **params: Any,
    ) -> None:
        super().__init__(what, where, fix, **params)
        self.retryable = retryable
        """The same request may succeed later."""
        self.retry_after_s = retry_after_s
        self.maybe_billed = maybe_billed
        """The server may have generated, and charged for, an answer that did not arrive."""


class ChatClient:
    """Sends conversations to one model at one endpoint; safe to share between threads."""

    def __init__(
        self,
        address: Address,
        options: RequestOptions | None = None,
        key: str | None = None,
        *,
        sleep: Callable[[float], object] = time.sleep,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Raises: ConfigError for a malformed URL. Transports and `sleep` are replaced in tests."""
        check_url(address.url)
        self.address, self.options = address, options or RequestOptions()
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._sleep, self._transport, self._async_transport = sleep, transport, async_transport

    @cached_property
    def _http(self) -> httpx.Client:
        return httpx.Client(headers=self.headers, timeout=TIMEOUT, transport=self._transport)

    def complete(self, messages: Sequence[Message]) -> Completion:
        """The model's answer. Raises: RequestError after the last attempt, or at once if another one is pointless."""
        return with_retries(lambda _: self.send(messages), self._sleep)

    def send(self, messages: Sequence[Message]) -> Completion:
        """The model's answer to a single request. Raises: RequestError."""
        body, url = self.options.body(self.address.model, messages), self.address.url
        try:
            with self._http.stream("POST", self.address.completions_url, json=body) as response:
                blocks = response.iter_bytes()
                if not response.is_success:
                    raise refused(response, _read_at_most(blocks, ERROR_CHARACTERS), url)
                content = _read_at_most(blocks, MAX_RESPONSE_BYTES)
        except httpx.HTTPError as error:
            raise unreachable(error, url) from None
        return read_completion(content, url)

    async def stream(self, messages: Sequence[Message]) -> AsyncIterator[Completion]:
        """The answer so far, after every event of the stream; never retried. Raises: RequestError."""
        body, url = self.options.body(self.address.model, messages, stream=True), self.address.url
        answer = StreamedAnswer(url)
        try:
            async with (
                httpx.AsyncClient(headers=self.headers, timeout=TIMEOUT, transport=self._async_transport) as http,
                http.stream("POST", self.address.completions_url, json=body) as response,
            ):
                if not response.is_success:
                    content = b""
                    async for block in response.aiter_bytes():
                        if len(content := content + block) >= ERROR_CHARACTERS:
                            break
                    raise refused(response, content[:ERROR_CHARACTERS], url)
                async for line in response.aiter_lines():
                    if answer.add(line):
                        yield answer.completion
                    if answer.too_long:
                        break
        except httpx.HTTPError as error:
            raise unreachable(error, url) from None


def with_retries(attempt: Callable[[int], Completion], sleep: Callable[[float], object] = time.sleep) -> Completion:
    """The first answer of `attempt(0)`, `attempt(1)`, …; waits double from one second and follow Retry-After.

    Raises: the RequestError of the last of ATTEMPTS attempts, or the first that is not retryable.
    """
    wait_s = 1.0
    for number in range(ATTEMPTS):
        if number:
            sleep(min(wait_s, MAX_WAIT_S))
            wait_s *= 2
        try:
            return attempt(number)
        except RequestError as error:
            if not error.retryable or number == ATTEMPTS - 1:
                raise
            wait_s = max(wait_s, error.retry_after_s)
    raise AssertionError("the last attempt returns or raises")


def read_completion(content: bytes, url: str) -> Completion:
    """The answer in a response body. Raises: RequestError if it is not a chat completion."""
    try:
        value: Any = json.loads(content)
        choice = value["choices"][0]
        text, used = choice["message"]["content"], value.get("usage") or {}
        if not isinstance(text, str):
            raise TypeError("content is not a string")
        return Completion(
            text,
            int(used.get("prompt_tokens") or 0),
            int(used.get("completion_tokens") or 0),
            stop_reason=STOP_REASONS.get(str(choice.get("finish_reason") or ""), "stop"),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        html = content.lstrip().startswith(b"<")
        what = tr("The response is an HTML page, not a chat completion.") if html else tr("Not a chat completion.")
        raise RequestError(
            what,
            url,
            "The address usually ends in /v1.",
            code="endpoint-no-completion",
            retryable=not html,  # broken JSON may be whole next time; a web page stays one
            maybe_billed=True,
        ) from None


class StreamedAnswer:
    """Collects the server-sent events of one streamed chat completion."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._text, self._calls, self._so_far = "", ToolCallPieces(), Completion("")

    @property
    def completion(self) -> Completion:
        return self._so_far

    @property
    def too_long(self) -> bool:
        return len(self._so_far.text) + len(self._so_far.reasoning or "") > MAX_STREAM_CHARACTERS

    def add(self, line: str) -> bool:
        """Take one line of the stream; True if it held a part of the answer. Raises: RequestError."""
        choice = self._choice(line)
        if choice is None:
            return False
        delta, before = choice.get("delta") or {}, self._so_far
        self._text += str(delta.get("content") or "")
        self._calls.add(delta.get("tool_calls") or ())
        reasoning = str(delta.get("reasoning_content") or delta.get("reasoning") or "")
        self._so_far = replace(
            before,
            text=self._text + self._calls.text,
            reasoning=(before.reasoning or "") + reasoning or None,
            stop_reason=STOP_REASONS.get(str(choice.get("finish_reason") or ""), before.stop_reason),
            tokens=before.tokens + 1,
        )
        if self.too_long:
            self._so_far = replace(self._so_far, stop_reason="length")
        return True

    def _choice(self, line: str) -> Mapping[str, Any] | None:
        """The first choice of a `data:` line; None for lines without one."""
        if not line.startswith("data:") or (content := line[5:].strip()) in ("", "[DONE]"):
            return None
        try:
            event = json.loads(content)
            error = event.get("error")
            choices = event.get("choices") or ()
            choice = choices[0] if choices and isinstance(choices[0], dict) else None
        except (ValueError, AttributeError, KeyError, TypeError):
            raise RequestError(
                "The stream is not a chat completion.",
                self.url,
                "The address usually ends in /v1.",
                code="endpoint-no-completion",
            ) from None
        if error:
            raise RequestError(
                "The endpoint reported an error: {error}",
                self.url,
                "Try again.",
                code="endpoint-stream",
                error=str(error)[:ERROR_CHARACTERS],
            )
        return choice


class ToolCallPieces:
    """Tool calls that arrive in pieces, and the text that shows them."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, str]] = {}

    def add(self, deltas: Sequence[Mapping[str, Any]]) -> None:
        for delta in deltas:
            call = self._calls.setdefault(int(delta.get("index") or 0), {"name": "", "arguments": ""})
            for name in call:
                call[name] += str((delta.get("function") or {}).get(name) or "")

    @property
    def text(self) -> str:
        return "".join(f"\n{call['name']}({call['arguments']})" for call in self._calls.values())


def refused(response: httpx.Response, content: bytes, url: str) -> RequestError:
    """The error for a status that is not a success; `content` is the beginning of the response."""
    status = response.status_code
    busy = status in BUSY_STATUSES or status >= 500
    said = content.decode("utf-8", "replace").strip()
    return RequestError(
        "The endpoint answered with status {status}{details}.",
        url,
        tr("Try again later.") if busy else tr("Check the address, the model and the API key."),
        code="endpoint-busy" if busy else "endpoint-refused",
        retryable=busy,
        retry_after_s=retry_after(response.headers.get("Retry-After", "")),
        status=status,
        details=f": {said}" if said else "",
    )


def unreachable(error: httpx.HTTPError, url: str) -> RequestError:
    """The error for a request without a response."""
    return RequestError(
        "The endpoint did not answer ({error}).",
        url,
        "Check that it is running and reachable.",
        code="endpoint-unreachable",
        retryable=True,
        maybe_billed=isinstance(error, httpx.ReadTimeout | httpx.RemoteProtocolError),
        error=f"{type(error).__name__}: {error}",
    )


def retry_after(value: str) -> float:
    """Seconds in a Retry-After header, which is a number or a date; 0 if it is missing or malformed."""
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0


def _read_at_most(blocks: Iterator[bytes], limit: int) -> bytes:
    content = bytearray()
    for block in blocks:
        content += block
        if len(content) >= limit:
            break
    return bytes(content[:limit])
