"""The HTTP application: routes, API key, limits and errors around one batcher."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from sartor.base.settings import GenerationSettings
from sartor.inference.batcher import Batcher
from sartor.inference.engine import Engine
from sartor.inference.grammars import Grammars
from sartor.inference.requests import Progress, QueueFull, Ticket
from sartor.inference.requests import Request as BatchRequest
from sartor.inference.weights import WeightSet
from sartor.server import completions
from sartor.server.admission import Admission, error_response
from sartor.server.answer_grammar import guided_requests
from sartor.server.completions import CompletionRequest, TextReply
from sartor.server.metrics import Metrics
from sartor.server.progress_queue import ProgressQueue
from sartor.server.reading_queue import ReadingQueue
from sartor.server.request_log import RequestLog, note
from sartor.server.responses import Conversation, error
from sartor.server.schemas import BadRequest, ChatRequest, Limits, prompt_size

POLL_S = 0.25
"""How often a waiting request checks that its client is still connected."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one server. Without a key only loopback host names are accepted, against DNS rebinding."""

    name: str
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    limits: Limits = field(default_factory=Limits)
    api_key: str | None = None
    request_log: TextIO | None = None
    log_texts: bool = False


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the requests of one route are read and answered."""

    size: Callable[[Any, Engine, Limits], int]
    requests: Callable[..., list[BatchRequest]]
    reply: Callable[[Any, str, Engine], Conversation | TextReply]


CHAT = _Kind(prompt_size, guided_requests, Conversation)
COMPLETION = _Kind(completions.prompt_size, completions.batch_requests, TextReply)


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
        self.reading = ReadingQueue(limits.waiting)
        self.grammars = Grammars(engine.tokenizer, engine.encoder.stop_ids)

    async def start(
        self, asked: ChatRequest | CompletionRequest, kind: _Kind, gone: Callable[[], Awaitable[bool]]
    ) -> tuple[Conversation | TextReply, ProgressQueue, list[Ticket]]:
        """Queue a request, unless its client is `gone` when its turn comes.

        What can be refused without reading the prompt is refused first. Raises: BadRequest, QueueFull, ClientGone.
        """
        settings = self.settings
        if (weights := self.models.get(asked.model)) is None:
            names = ", ".join(self.models)
            raise BadRequest(f"Unknown model {asked.model!r}; available: {names}.", "model", "model_not_found", 404)
        size = kind.size(asked, self.engine, settings.limits)
        self.batcher.require_room(asked.answers)
        async with self.reading.turn(size):  # long prompts are tokenized off the event loop, one at a time
            if await gone():
                raise ClientGone
            requests = await asyncio.to_thread(
                kind.requests, asked, self.engine, weights, settings.generation, settings.limits, self.grammars
            )
        loop, queue = asyncio.get_running_loop(), ProgressQueue()

        def on_progress(index: int, progress: Progress) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (index, progress))

        tickets = self.batcher.submit(requests, on_progress)
        return kind.reply(asked, asked.model, self.engine), queue, tickets

    async def answer(self, asked: ChatRequest | CompletionRequest, kind: _Kind, request: Request) -> Response:
        """The response to a request, whole or streamed."""
        began = time.perf_counter()
        reply, queue, tickets = await self.start(asked, kind, request.is_disconnected)
        steps = _steps(self, queue, tickets, request, began)
        if asked.stream:
            return StreamingResponse(_events(self, reply, steps, request), media_type="text/event-stream")
        async for index, progress in steps:
            reply.take(index, progress)
        self.log(request, reply)
        if not reply.answers:
            return Response(status_code=499)  # the client has disconnected
        return JSONResponse(reply.whole())

    def log(self, request: Request, reply: Conversation | TextReply) -> None:
        """What the request log says of an answer; texts only where they were asked for."""
        fields: dict[str, Any] = {"id": reply.id, "model": reply.name, "stream": bool(reply.request.stream)}
        if reply.answers:
            usage = reply.usage()
            fields |= {name: usage[name] for name in ("prompt_tokens", "completion_tokens")}
        if self.settings.log_texts:
            fields |= {"request": reply.request.model_dump(exclude_none=True), "answers": list(reply.texts.values())}
        note(request.scope, **fields)


class ClientGone(Exception):
    """The client disconnected before its prompt was read."""


class GenerationFailed(Exception):
    """The batch with this request failed, or its grammar cannot be followed to the end (then `refused`)."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress.error)
        self.status, self.kind = (400, "invalid_request_error") if progress.refused else (500, "server_error")


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
    app.add_middleware(Admission, limits=settings.limits, api_key=settings.api_key, metrics=server.metrics)
    app.add_middleware(RequestLog, file=settings.request_log)
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
    async def chat(asked: ChatRequest, request: Request) -> Response:
        return await server.answer(asked, CHAT, request)

    @app.post("/v1/completions", response_model=None)
    async def complete(asked: CompletionRequest, request: Request) -> Response:
        return await server.answer(asked, COMPLETION, request)


def _model(name: str, server: Server) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": server.since, "owned_by": "sartor"}


async def _steps(
    server: Server,
    queue: ProgressQueue,
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
                raise GenerationFailed(progress)
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
    server: Server, reply: Conversation | TextReply, steps: AsyncIterator[tuple[int, Progress]], request: Request
) -> AsyncIterator[bytes]:
    """Server-sent events; a slow reader delays only this generator."""
    try:
        async for index, progress in steps:
            for chunk in reply.pieces(index, progress):
                yield _event(chunk)
        options = reply.request.stream_options
        if options is not None and options.include_usage and reply.answers:
            yield _event(reply.usage_chunk())
        yield b"data: [DONE]\n\n"
    except GenerationFailed as failed:
        yield _event(error(str(failed), failed.kind))
    finally:
        server.log(request, reply)
        with suppress(RuntimeError):
            await steps.aclose()  # type: ignore[attr-defined]


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _add_errors(app: FastAPI, limits: Limits) -> None:
    @app.exception_handler(BadRequest)
    async def bad(request: Request, bad: BadRequest) -> JSONResponse:
        return error_response(bad.status, bad.message, "invalid_request_error", bad.param, bad.code)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, invalid: RequestValidationError) -> JSONResponse:
        first = invalid.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return error_response(
            400, f"{where or 'body'}: {first['msg']}", "invalid_request_error", where or None, first["type"]
        )

    @app.exception_handler(HTTPException)
    async def plain(request: Request, plain: HTTPException) -> JSONResponse:
        return error_response(plain.status_code, str(plain.detail), "invalid_request_error", headers=plain.headers)

    @app.exception_handler(QueueFull)
    async def full(request: Request, full: QueueFull) -> JSONResponse:
        headers = {"Retry-After": str(limits.retry_after_s)}
        return error_response(429, f"{full.what} {full.fix}", "rate_limit_error", code="queue_full", headers=headers)

    @app.exception_handler(ClientGone)
    async def gone(request: Request, gone: ClientGone) -> Response:
        return Response(status_code=499)

    @app.exception_handler(GenerationFailed)
    async def failed(request: Request, failed: GenerationFailed) -> JSONResponse:
        return error_response(failed.status, str(failed), failed.kind)
