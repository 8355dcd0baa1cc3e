"""The HTTP application: routes, API key, limits and errors around one batcher."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from sartor.base.settings import GenerationSettings
from sartor.inference.batcher import Batcher, Progress, QueueFull, Ticket
from sartor.inference.engine import Engine
from sartor.inference.weights import WeightSet
from sartor.server.metrics import Metrics
from sartor.server.responses import Conversation, error
from sartor.server.schemas import BadRequest, ChatRequest, Limits, batch_requests

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "testserver"})
_PORT = re.compile(r":\d+$")
POLL_S = 0.25
"""How often a waiting request checks that its client is still connected."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one server. Without a key only loopback host names are accepted, against DNS rebinding."""

    name: str
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    limits: Limits = field(default_factory=Limits)
    api_key: str | None = None


class Server:
    """What all requests share."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.engine, self.settings = engine, settings
        limits = settings.limits
        self.batcher = Batcher(engine, max_rows=limits.rows, max_waiting=limits.waiting)
        self.metrics = Metrics(self.batcher)
        self.models: dict[str, WeightSet] = {settings.name: "tuned"}
        if engine.weights.has_both:
            self.models[f"{settings.name}:base"] = "base"
        self.since = int(time.time())
        self.reading = asyncio.Lock()

    def admits(self, authorization: str | None) -> bool:
        """Whether the key is right, in constant time."""
        if self.settings.api_key is None:
            return True
        given = (authorization or "").removeprefix("Bearer ").encode("utf-8", "replace")
        wanted = self.settings.api_key.encode("utf-8")
        return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(wanted).digest())

    async def start(
        self, chat_request: ChatRequest
    ) -> tuple[Conversation, asyncio.Queue[tuple[int, Progress]], list[Ticket]]:
        """Queue a request. Raises: BadRequest, QueueFull."""
        if (weights := self.models.get(chat_request.model)) is None:
            names = ", ".join(self.models)
            raise BadRequest(
                f"Unknown model {chat_request.model!r}; available: {names}.", "model", "model_not_found", 404
            )
        async with self.reading:  # long prompts are tokenized off the event loop, one at a time
            requests = await asyncio.to_thread(
                batch_requests, chat_request, self.engine, weights, self.settings.generation, self.settings.limits
            )
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Progress]]()

        def on_progress(index: int, progress: Progress) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (index, progress))

        tickets = self.batcher.submit(requests, on_progress)
        return Conversation(chat_request, chat_request.model, self.engine), queue, tickets


class GenerationFailed(Exception):
    """The batch with this request failed."""


def create_app(engine: Engine, settings: ServerSettings) -> FastAPI:
    """The application; its batcher is closed with it."""
    server = Server(engine, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.batcher.close)

    app = FastAPI(title="Sartor", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    _add_errors(app, settings.limits)
    _add_routes(app, server)
    app.add_middleware(AuthMiddleware, server=server)
    return app


def _add_routes(app: FastAPI, server: Server) -> None:
    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "waiting": server.batcher.waiting, "running": server.batcher.running}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name, server) for name in server.models]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        if name not in server.models:
            raise BadRequest(f"Unknown model {name!r}.", "model", "model_not_found", 404)
        return _model(name, server)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(chat_request: ChatRequest, request: Request) -> Response | dict[str, Any]:
        began = time.perf_counter()
        conversation, queue, tickets = await server.start(chat_request)
        steps = _steps(server, conversation, queue, tickets, request, began)
        if chat_request.stream:
            return StreamingResponse(_events(server, conversation, steps), media_type="text/event-stream")
        async for index, progress in steps:
            if progress.token is not None:
                conversation.tokens.setdefault(index, []).append(progress.token)
            if progress.answer is not None:
                conversation.answers[index] = progress.answer
        if not conversation.answers:
            return Response(status_code=499)  # the client has disconnected
        return JSONResponse(conversation.whole())


def _model(name: str, server: Server) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": server.since, "owned_by": "sartor"}


async def _steps(
    server: Server,
    conversation: Conversation,
    queue: asyncio.Queue[tuple[int, Progress]],
    tickets: list[Ticket],
    request: Request,
    began: float,
) -> AsyncIterator[tuple[int, Progress]]:
    """Progress of the choices, until all are answered or the client disconnects; then the work stops.

    Raises: Failed when the batch broke down.
    """
    left, first, looked = len(tickets), True, began
    try:
        while left:
            if time.perf_counter() - looked > POLL_S:
                if await request.is_disconnected():
                    return
                looked = time.perf_counter()
            try:
                index, progress = await asyncio.wait_for(queue.get(), POLL_S)
            except TimeoutError:
                continue
            if progress.error is not None:
                raise GenerationFailed(progress.error)
            if first:
                server.metrics.first.observe(time.perf_counter() - began)
                first = False
            if progress.answer is not None:
                left -= 1
                _count(server, progress)
            yield index, progress
        server.metrics.whole.observe(time.perf_counter() - began)
    finally:
        if left:
            server.metrics.cancelled.inc()
        for ticket in tickets:
            ticket.cancel()


def _count(server: Server, progress: Progress) -> None:
    if (answer := progress.answer) is not None:
        server.metrics.tokens.labels("prompt").inc(answer.prompt_tokens)
        server.metrics.tokens.labels("answer").inc(answer.tokens)


async def _events(
    server: Server, conversation: Conversation, steps: AsyncIterator[tuple[int, Progress]]
) -> AsyncIterator[bytes]:
    """Server-sent events; a slow reader delays only this generator."""
    try:
        async for index, progress in steps:
            for chunk in conversation.pieces(index, progress):
                yield _event(chunk)
        options = conversation.request.stream_options
        if options is not None and options.include_usage and conversation.answers:
            yield _event(conversation.usage_chunk())
        yield b"data: [DONE]\n\n"
    except GenerationFailed as failed:
        yield _event(error(str(failed), "server_error"))
    finally:
        with suppress(RuntimeError):
            await steps.aclose()  # type: ignore[attr-defined]


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _add_errors(app: FastAPI, limits: Limits) -> None:
    @app.exception_handler(BadRequest)
    async def bad(request: Request, bad: BadRequest) -> JSONResponse:
        return _error(bad.status, bad.message, "invalid_request_error", bad.param, bad.code)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, invalid: RequestValidationError) -> JSONResponse:
        first = invalid.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return _error(400, f"{where or 'body'}: {first['msg']}", "invalid_request_error", where or None, first["type"])

    @app.exception_handler(HTTPException)
    async def plain(request: Request, plain: HTTPException) -> JSONResponse:
        return _error(plain.status_code, str(plain.detail), "invalid_request_error", headers=plain.headers)

    @app.exception_handler(QueueFull)
    async def full(request: Request, full: QueueFull) -> JSONResponse:
        headers = {"Retry-After": str(limits.retry_after_s)}
        return _error(429, f"{full.what} {full.fix}", "rate_limit_error", code="queue_full", headers=headers)

    @app.exception_handler(GenerationFailed)
    async def failed(request: Request, failed: GenerationFailed) -> JSONResponse:
        return _error(500, str(failed), "server_error")


def _error(
    status: int,
    message: str,
    kind: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    clean = message.encode("utf-8", "replace").decode("utf-8")
    return JSONResponse(error(clean, kind, param, code), status, dict(headers or {}))


Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class AuthMiddleware:
    """Checks before parsing: API key, host name, content type and body size."""

    def __init__(self, app: Any, server: Server) -> None:
        self.app, self.server = app, server

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.server.metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        if (refused := self._refusal(scope, headers)) is not None:
            await refused(scope, receive, counted)
            return
        body = b""
        if scope["method"] == "POST":
            async for part in _body(receive):
                body += part
                if len(body) > self.server.settings.limits.body_bytes:
                    await self._too_large()(scope, receive, counted)
                    return
        sent = False

        async def replay() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay if scope["method"] == "POST" else receive, counted)

    def _refusal(self, scope: Any, headers: Mapping[str, str]) -> JSONResponse | None:
        settings = self.server.settings
        if settings.api_key is None and _PORT.sub("", headers.get("host", "")) not in LOOPBACK:
            return _error(403, "This server answers on loopback only.", "invalid_request_error", code="host")
        if scope["path"] != "/health" and not self.server.admits(headers.get("authorization")):
            challenge = {"WWW-Authenticate": "Bearer"}
            return _error(
                401,
                "The API key is missing or wrong.",
                "authentication_error",
                code="invalid_api_key",
                headers=challenge,
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > settings.limits.body_bytes:
            return self._too_large()
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":  # a page of another site can only send other types
            return _error(415, "Send application/json.", "invalid_request_error", code="content_type")
        return None

    def _too_large(self) -> JSONResponse:
        most = self.server.settings.limits.body_bytes
        return _error(413, f"The body is larger than {most} bytes.", "invalid_request_error", code="body_too_large")


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        yield message.get("body", b"")
        if not message.get("more_body"):
            return
