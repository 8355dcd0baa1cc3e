"""A model behind an OpenAI-compatible address as one side of a chat: what may be sent, and its answer as it streams."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from sartor.base.errors import ConfigError, EndpointError, SartorError
from sartor.base.settings import GenerationSettings
from sartor.base.types import Message
from sartor.web.reply import RemoteAnswer, Reply

KEY_NAME = re.compile(r"[A-Z][A-Z0-9_]*_API_KEY")
"""Only such variables may be sent: any other secret of the environment stays where it is."""
MAX_CHARACTERS = 2_000_000
TIMEOUT = httpx.Timeout(120.0, connect=10.0)
REASONS = {"stop": "stop", "length": "length", "tool_calls": "stop", "function_call": "stop"}


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a column's messages go; `consent` says that a person agreed to it."""

    url: str = ""
    model: str = ""
    key_env: str = ""
    consent: bool = False

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]


def key_of(url: str, key_env: str) -> str | None:
    """The key for an address; None where no variable is named.

    Raises: ConfigError for an address that is none, a name that is no API key's, a variable that is not set, or a key
    that would travel in the open.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ConfigError("This is no address of an endpoint.", url, "Write https://HOST/v1, without a name in it.")
    if not key_env:
        return None
    if not KEY_NAME.fullmatch(key_env):
        raise ConfigError("Only variables named …_API_KEY are sent.", key_env, "Set one of such a name.")
    if not (key := os.environ.get(key_env)):
        raise ConfigError(f"The environment has no {key_env}.", "sartor web", f"Set it before: export {key_env}=…")
    if parts.scheme == "http" and not _on_this_machine(parts.hostname):
        raise ConfigError("The key would travel unencrypted.", url, "Use https, or no key.")
    return key


def _on_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def ask(
    remote: Remote,
    turns: Sequence[Message],
    generation: GenerationSettings,
    reply: Reply,
    *,
    seed: int = 0,
    thinking: bool | None = None,
    tools: Sequence[Any] = (),
    transport: httpx.AsyncBaseTransport | None = None,
) -> None:
    """Send the turns; `reply` grows as the answer comes. Errors are put into it; cancelling ends the request."""
    text, reasoning, calls, reason, tokens = "", "", _Calls(), "stop", 0
    try:
        if not remote.consent:
            raise ConfigError("Nothing was sent: you have not agreed to it.", remote.url, "Tick the box first.")
        key = key_of(remote.url, remote.key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = request(remote.model, turns, generation, seed=seed, thinking=thinking, tools=tools)
        async with (
            httpx.AsyncClient(headers=headers, timeout=TIMEOUT, transport=transport) as http,
            http.stream("POST", f"{remote.url.rstrip('/')}/chat/completions", json=body) as response,
        ):
            if response.status_code != 200:
                said = (await _beginning(response)).decode("utf-8", "replace")
                raise EndpointError(f"Status {response.status_code}: {said}", remote.url, "Check address, model, key.")
            async for line in response.aiter_lines():
                if (choice := _choice(line, remote.url)) is None:
                    continue
                delta = choice.get("delta") or {}
                text += str(delta.get("content") or "")
                reasoning += str(delta.get("reasoning_content") or delta.get("reasoning") or "")
                calls.take(delta.get("tool_calls") or ())
                reason = REASONS.get(str(choice.get("finish_reason") or ""), reason)
                tokens += 1
                reply.grow(text + calls.text)
                if len(text) + len(reasoning) > MAX_CHARACTERS:
                    reason = "length"
                    break
        reply.end(RemoteAnswer(text + calls.text, reasoning or None, reason, tokens))
    except asyncio.CancelledError:
        reply.end(RemoteAnswer(text + calls.text, reasoning or None, "cancelled", tokens))
    except httpx.HTTPError as error:
        what = f"The endpoint did not answer ({type(error).__name__})."
        reply.fail(EndpointError(what, remote.url, "Is it running, and reachable?"))
    except SartorError as error:
        reply.fail(error)


def request(
    model: str,
    turns: Sequence[Message],
    generation: GenerationSettings,
    *,
    seed: int = 0,
    thinking: bool | None = None,
    tools: Sequence[Any] = (),
) -> dict[str, Any]:
    """The body of a streamed chat completion; `thinking` goes in vLLM's and SGLang's way, and only when it is set."""
    drawing = {"temperature": generation.temperature, "top_p": generation.top_p} if generation.do_sample else {}
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": turn.role, "content": turn.text} for turn in turns],
        "stream": True,
        "max_tokens": generation.max_new_tokens,
        "temperature": 0,
        "seed": seed,
        **drawing,
    }
    if tools:
        body["tools"] = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
    if thinking is not None:
        body["chat_template_kwargs"] = {"enable_thinking": thinking}
    return body


class _Calls:
    """Tool calls that come in pieces, and how they are shown."""

    def __init__(self) -> None:
        self.parts: dict[int, dict[str, str]] = {}

    def take(self, deltas: Sequence[Mapping[str, Any]]) -> None:
        for delta in deltas:
            call = self.parts.setdefault(int(delta.get("index") or 0), {"name": "", "arguments": ""})
            for name in call:
                call[name] += str((delta.get("function") or {}).get(name) or "")

    @property
    def text(self) -> str:
        return "".join(f"\n{call['name']}({call['arguments']})" for call in self.parts.values())


def _choice(line: str, url: str) -> Mapping[str, Any] | None:
    """The first choice of one line of the stream; None for lines without one. Raises: EndpointError."""
    if not line.startswith("data:") or (content := line[5:].strip()) in ("", "[DONE]"):
        return None
    try:
        told = json.loads(content)
        if error := told.get("error"):
            raise EndpointError(f"The endpoint broke off: {str(error)[:300]}", url, "Ask again.")
        choices = told.get("choices") or ()
        return choices[0] if choices and isinstance(choices[0], dict) else None
    except (ValueError, AttributeError, KeyError, TypeError):
        raise EndpointError("The stream is no chat completion.", url, "The address usually ends in /v1.") from None


async def _beginning(response: httpx.Response, most: int = 300) -> bytes:
    """The first bytes of an error, whatever its length."""
    said = b""
    async for block in response.aiter_bytes():
        said += block
        if len(said) >= most:
            break
    return said[:most]
