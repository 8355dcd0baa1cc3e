"""A server in a thread on a free port, as people reach it."""

from __future__ import annotations

import threading
import time
from typing import Any

from sartor.inference.engine import Engine
from sartor.server.app import Server, ServerSettings, create_app
from sartor.server.connections import ConnectionLimits
from sartor.server.run import address_of, bound, uvicorn_server
from sartor.server.schemas import Limits

LIMITS = Limits(body_bytes=20_000, prompt_tokens=300, answer_tokens=200, choices=4, waiting=128, rows=16)


class Served:
    """A running server: its address and its inside."""

    def __init__(self, engine: Engine, settings: ServerSettings, **limits: Any) -> None:
        app = create_app(engine, settings)
        self.app, self.inside = app, _server(app)
        listener = bound("127.0.0.1", 0)
        self.address = address_of(listener)
        self._uvicorn = uvicorn_server(
            app, ConnectionLimits(**limits), log_level="error", ws="none", timeout_graceful_shutdown=1
        )
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [listener]})
        self._thread.start()
        while not self._uvicorn.started:
            time.sleep(0.01)

    def close(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join()


def _server(app: Any) -> Server:
    server: Server = app.state.server
    return server
