"""Reads what an OpenAI-compatible endpoint sends, whatever it sends: answers, streams and errors, within bounds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from sartor.base.api_keys import masked
from sartor.base.errors import EndpointError
from sartor.base.files import whole_characters
from sartor.base.i18n import Text, tr
from sartor.base.types import Completion, StopReason

BUSY_STATUSES = frozenset((408, 409, 425, 429))
"""Worth another attempt, as is every status from 500."""
FINAL_CODES = frozenset(("insufficient_quota", "billing_not_active", "access_terminated"))
"""What a provider says with a busy status when no later attempt will succeed."""
MAX_STREAM_CHARACTERS = 2_000_000
"""A longer streamed answer is cut off, as if by its token limit."""
MAX_LINE_BYTES = 1_000_000
"""Of one event of a stream."""
MAX_TOKENS_REPORTED = 10**9
ERROR_CHARACTERS = 1000
"""Characters of an error response that its message quotes."""
ERROR_BYTES = 65_536
"""Bytes of an error response that are read."""
REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-ds-trace-id", "x-amzn-requestid", "apim-request-id", "cf-ray")
STOP_REASONS: Mapping[str, StopReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "function_call": "stop",
}
NOT_TO_READ = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)
"""What comes of reading JSON that is not what it should be."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\s]+")


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


def read_completion(content: bytes, url: str) -> Completion:
    """The answer in a response body. Raises: RequestError if it is not a chat completion."""
    try:
        value: Any = json.loads(content)
        choice = value["choices"][0]
        text, used = choice["message"]["content"], value.get("usage") or {}
        if not isinstance(text, str):
            raise TypeError("content is not a string")
        return Completion(
            whole_characters(text),
            _count(used.get("prompt_tokens")),
            _count(used.get("completion_tokens")),
            stop_reason=STOP_REASONS.get(str(choice.get("finish_reason") or ""), "stop"),
        )
    except NOT_TO_READ:
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


def _count(value: Any) -> int:
    """A number of tokens; 0 for what cannot be one. Raises: ValueError, TypeError, OverflowError."""
    return min(max(int(value or 0), 0), MAX_TOKENS_REPORTED)


class LineReader:
    """Cuts the bytes of a stream into lines."""

    def __init__(self, url: str) -> None:
        self.url, self._rest = url, b""

    def add(self, block: bytes) -> Iterator[str]:
        """The lines that a block completes. Raises: RequestError for an endless one."""
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")
        if len(self._rest) > MAX_LINE_BYTES:
            raise not_a_stream(self.url)

    def end(self) -> str:
        return self._rest.decode("utf-8", "replace").rstrip("\r")


class StreamedAnswer:
    """Collects the server-sent events of one streamed chat completion."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url, self._key = url, key
        self._text, self._calls, self._so_far = "", ToolCallPieces(), Completion("")
        self.events = 0

    @property
    def completion(self) -> Completion:
        return self._so_far

    @property
    def too_long(self) -> bool:
        return len(self._so_far.text) + len(self._so_far.reasoning or "") > MAX_STREAM_CHARACTERS

    def add(self, line: str) -> bool:
        """Take one line of the stream; True if it held a part of the answer. Raises: RequestError."""
        if not line.startswith("data:") or not (content := line[5:].strip()):
            return False
        self.events += 1
        if content == "[DONE]":
            return False
        try:
            event = json.loads(content)
            if event.get("error"):
                error = event["error"]
            else:
                error, choices = None, event.get("choices") or ()
                if not choices:
                    return False
                self._take(choices[0])
        except NOT_TO_READ:
            raise not_a_stream(self.url) from None
        if error:
            raise RequestError(
                "The endpoint reported an error: {error}",
                self.url,
                "Try again.",
                code="endpoint-stream",
                error=shown(_details(error) or str(error), self._key),
            )
        return True

    def _take(self, choice: Mapping[str, Any]) -> None:
        delta, before = choice.get("delta") or {}, self._so_far
        self._text += str(delta.get("content") or "")
        self._calls.add(delta.get("tool_calls") or ())
        reasoning = str(delta.get("reasoning_content") or delta.get("reasoning") or "")
        self._so_far = replace(
            before,
            text=whole_characters(self._text + self._calls.text),
            reasoning=(before.reasoning or "") + reasoning or None,
            stop_reason=STOP_REASONS.get(str(choice.get("finish_reason") or ""), before.stop_reason),
            tokens=before.tokens + 1,
        )
        if self.too_long:
            self._so_far = replace(self._so_far, stop_reason="length")


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


def refused(response: httpx.Response, content: bytes, url: str, key: str | None = None) -> RequestError:
    """The error for a status that is not a success; `content` is the beginning of the response."""
    status, (said, codes) = response.status_code, read_error(content)
    final = bool(FINAL_CODES & set(codes))
    busy = (status in BUSY_STATUSES or status >= 500) and not final
    request_id = next((response.headers[name] for name in REQUEST_ID_HEADERS if name in response.headers), "")
    more = "; ".join(filter(None, (", ".join(codes), f"request {request_id}" if request_id else "")))
    details = (f": {said}" if said else "") + (f" ({more})" if more else "")
    return RequestError(
        "The endpoint answered with status {status}{details}",
        url,
        _fix(status, busy, final),
        code="endpoint-busy" if busy else "endpoint-refused",
        retryable=busy,
        retry_after_s=retry_after(response.headers.get("Retry-After", "")),
        status=status,
        details=shown(details, key) or ".",
    )


def _fix(status: int, busy: bool, final: bool) -> Text:
    if busy:
        return tr("Try again later.")
    if final or status == 402:
        return tr("Check the plan and the balance of the account.")
    if status in (401, 403):
        return tr("Check the API key, and that it may use this model.")
    if 300 <= status < 400:
        return tr("Redirects are not followed: give the address it leads to.")
    if status in (404, 405):
        return tr("Check the address, which usually ends in /v1, and the model's name.")
    return tr("Check the address, the model and the API key.")


def read_error(content: bytes) -> tuple[str, tuple[str, ...]]:
    """What a provider says in an error response, and its codes: type, code and the field it is about."""
    text = content.decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        title = re.search(r"<title>(.*?)</title>", text[:ERROR_BYTES], re.DOTALL | re.I) if text[:1] == "<" else None
        return (title[1] if title else text), ()
    value = value[0] if isinstance(value, list) and value else value
    inner = value.get("error", value) if isinstance(value, Mapping) else value
    said = _details(inner) or (_details(value) if isinstance(value, Mapping) else "") or text
    holder = inner if isinstance(inner, Mapping) else value if isinstance(value, Mapping) else {}
    codes = (holder.get(name) for name in ("type", "status", "code", "param"))
    return said, tuple(dict.fromkeys(str(code)[:80] for code in codes if isinstance(code, str | int) and code))


def _details(value: Any) -> str:
    """The message in an error object; OpenAI, FastAPI, Google and others name it differently."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        for name in ("message", "detail", "error_description", "msg", "title"):
            if found := value.get(name):
                return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return ""


def shown(said: str, key: str | None = None) -> str:
    """A foreign text as a message quotes it: one line of bounded length, no control characters, no keys."""
    line = _UNPRINTABLE.sub(" ", masked(whole_characters(said[:ERROR_BYTES]), key)).rstrip()
    return line if len(line) <= ERROR_CHARACTERS else line[: ERROR_CHARACTERS - 1] + "…"


def unreachable(error: httpx.HTTPError, url: str, key: str | None = None) -> RequestError:
    """The error for a request without a response."""
    return RequestError(
        "The endpoint did not answer ({error}).",
        url,
        "Check that it is running and reachable.",
        code="endpoint-unreachable",
        retryable=not isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError),
        maybe_billed=isinstance(error, httpx.ReadTimeout | httpx.ReadError | httpx.RemoteProtocolError),
        error=shown(f"{type(error).__name__}: {error}", key),
    )


def too_slow(url: str, seconds: float) -> RequestError:
    """The error for an answer that never ends."""
    return RequestError(
        "The endpoint was still answering after {seconds:.0f} s.",
        url,
        "Ask for shorter answers, or use a faster model.",
        code="endpoint-unreachable",
        maybe_billed=True,
        seconds=seconds,
    )


def compressed(encoding: str, url: str) -> RequestError:
    """The error for a body that was not asked for: a few bytes of it may become gigabytes."""
    return RequestError(
        "The endpoint sent a compressed answer ({encoding}), which was not asked for.",
        url,
        "Turn compression off at the server or the proxy before it.",
        code="endpoint-no-completion",
        maybe_billed=True,
        encoding=shown(encoding),
    )


def not_a_stream(url: str) -> RequestError:
    return RequestError(
        "The stream is not a chat completion.",
        url,
        "The address usually ends in /v1.",
        code="endpoint-no-completion",
        maybe_billed=True,
    )


def retry_after(value: str) -> float:
    """Seconds in a Retry-After header, which is a number or a date; 0 if it is missing or malformed."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):  # a server's odd header is no reason to lose its answer
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
