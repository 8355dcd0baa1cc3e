"""Checks a request before anything else sees it: host name, API key, content type, body size and JSON."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from fastapi.responses import JSONResponse

from sartor.server.host_names import host_name, is_loopback
from sartor.server.json_body import BadJson, read_json
from sartor.server.metrics import Metrics
from sartor.server.responses import error
from sartor.server.schemas import Limits

Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
_ONCE = ("host", "origin", "authorization", "content-type", "content-length")
"""Headers of which a second one could be meant for another reader."""


class Admission:
    """ASGI middleware. Without a key only loopback host names are accepted, against DNS rebinding."""

    def __init__(self, app: Any, limits: Limits, api_key: str | None, metrics: Metrics) -> None:
        self.app, self.limits, self.api_key, self.metrics = app, limits, api_key, metrics

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        refused, body = self._refusal(scope), b""
        if refused is None and scope["method"] == "POST":
            body, refused = await self._read(receive)
        if refused is not None:
            await refused(scope, receive, counted)
            return
        sent = False

        async def replay() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay if scope["method"] == "POST" else receive, counted)

    def admits(self, authorization: str | None) -> bool:
        """Whether the key is right, in constant time."""
        if self.api_key is None:
            return True
        given = (authorization or "").removeprefix("Bearer ").encode("utf-8", "replace")
        wanted = self.api_key.encode("utf-8")
        return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(wanted).digest())

    def _refusal(self, scope: Any) -> JSONResponse | None:
        names = [name.decode("latin-1").lower() for name, _ in scope["headers"]]
        if any(names.count(name) > 1 for name in _ONCE) or not scope["path"].startswith("/"):
            return error_response(400, "A header occurs twice, or the target is not a path.", "invalid_request_error")
        headers = dict(zip(names, (value.decode("latin-1") for _, value in scope["headers"])))
        if self.api_key is None and not is_loopback(host_name(scope["headers"]) or ""):
            return error_response(403, "This server answers on loopback only.", "invalid_request_error", code="host")
        if self.api_key is None and headers.get("origin", "//" + headers["host"]).partition("//")[2] != headers["host"]:
            return error_response(403, "Pages of other sites are refused.", "invalid_request_error", code="origin")
        if scope["path"] != "/health" and not self.admits(headers.get("authorization")):
            challenge = {"WWW-Authenticate": "Bearer"}
            what = "The API key is missing or wrong."
            return error_response(401, what, "authentication_error", code="invalid_api_key", headers=challenge)
        length = headers.get("content-length", "0")
        if len(length) > 18 or (length.isdecimal() and int(length) > self.limits.body_bytes):
            return self._too_large()
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":  # a page of another site can only send other types
            return error_response(415, "Send application/json.", "invalid_request_error", code="content_type")
        return None

    async def _read(self, receive: Receive) -> tuple[bytes, JSONResponse | None]:
        """The body, or why it is refused."""
        body = bytearray()
        async for part in _parts(receive):
            body += part
            if len(body) > self.limits.body_bytes:
                return b"", self._too_large()
        try:
            read_json(bytes(body))
        except BadJson as bad:
            return b"", error_response(400, str(bad), "invalid_request_error", code="invalid_json")
        return bytes(body), None

    def _too_large(self) -> JSONResponse:
        what = f"The body is larger than {self.limits.body_bytes} bytes."
        return error_response(413, what, "invalid_request_error", code="body_too_large")


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


def error_response(
    status: int,
    message: str,
    kind: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """OpenAI's error object as a response."""
    clean = message.encode("utf-8", "replace").decode("utf-8")
    return JSONResponse(error(clean, kind, param, code), status, dict(headers or {}))
