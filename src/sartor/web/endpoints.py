"""An OpenAI-compatible endpoint on the chat page: consent, which keys may be sent, and the growing reply."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from sartor.base.api_keys import check_url, read_key
from sartor.base.errors import ConfigError, SartorError
from sartor.base.openai_client import Address, ChatClient, RequestOptions
from sartor.base.settings import GenerationSettings
from sartor.base.types import Completion, Message, Tool
from sartor.web.reply import RemoteAnswer, Reply

KEY_NAME = re.compile(r"[A-Z][A-Z0-9_]*_API_KEY")
"""Only such variables may be sent: whoever opens the page must not be able to read other secrets of the server."""


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a column's messages are sent; `consent` says that a person agreed to it."""

    url: str = ""
    model: str = ""
    key_env: str = ""
    consent: bool = False

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]


def key_of(url: str, key_env: str) -> str | None:
    """The API key for an address; None where no variable is named.

    Whoever opens the page is not always the one whose keys these are: a key goes only where the environment of the
    server binds it to.

    Raises: ConfigError for a malformed address, a variable that may not be sent or is not set, a key that is not bound
    to the host, or one that would be sent unencrypted.
    """
    check_url(url)
    if key_env and not KEY_NAME.fullmatch(key_env):
        raise ConfigError(
            "Only variables whose names end in _API_KEY are sent.", key_env, "Store the key under such a name."
        )
    return read_key(url, key_env)


# Seven parameters and the transport that tests replace.
async def ask(
    remote: Remote,
    turns: Sequence[Message],
    generation: GenerationSettings,
    reply: Reply,
    *,
    seed: int = 0,
    thinking: bool | None = None,
    tools: Sequence[Tool] = (),
    transport: httpx.AsyncBaseTransport | None = None,
) -> None:
    """Send the turns; `reply` grows as the answer arrives. Errors end up in it; cancelling ends the request."""
    answer = Completion("")
    try:
        if not remote.consent:
            raise ConfigError(
                "Nothing was sent: sending data to this endpoint needs your consent.", remote.url, "Tick the box first."
            )
        options = RequestOptions.from_settings(generation, seed=seed, thinking=thinking, tools=tools)
        key = key_of(remote.url, remote.key_env)
        client = ChatClient(Address(remote.url, remote.model), options, key, async_transport=transport)
        async for answer in client.stream(turns):
            reply.grow(answer.text)
        reply.end(RemoteAnswer(answer.text, answer.reasoning, answer.stop_reason, answer.tokens))
    except asyncio.CancelledError:
        reply.end(RemoteAnswer(answer.text, answer.reasoning, "cancelled", answer.tokens))
    except SartorError as error:
        reply.fail(error)
