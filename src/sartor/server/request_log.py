"""The request log: one JSON line for each request when its answer has been sent; no texts unless they are asked for."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

MAX_PATH_CHARACTERS = 200
_ENTRY = "sartor.request_log"


class RequestLog:
    """ASGI middleware around everything else, so that refused requests are logged too."""

    def __init__(self, app: Any, file: TextIO | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.app, self.file, self._clock = app, file, clock

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.file is None or scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, entry = self._clock(), scope.setdefault(_ENTRY, {})
        entry |= {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": str(scope["method"])[:16],
            "path": str(scope["path"])[:MAX_PATH_CHARACTERS],
            "status": 499,  # the client disconnected before there was one
        }

        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                entry["status"] = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception:
            entry["status"] = 500
            raise
        finally:
            entry["seconds"] = round(self._clock() - began, 4)
            self._write(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        """A full disk ends the log, not the server."""
        if self.file is None:
            return
        try:
            self.file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self.file.flush()
        except (OSError, ValueError) as error:
            with suppress(OSError, ValueError):
                print(f"The request log ends: {error}", file=sys.stderr)
            self.file = None


def note(scope: Any, **fields: Any) -> None:
    """Add fields to the line of the request that is being answered."""
    if (entry := scope.get(_ENTRY)) is not None:
        entry.update(fields)


def open_log(path: str | Path | None) -> TextIO | None:
    """The file to append to, readable by its owner alone; `-` is standard output. Raises: OSError."""
    if path is None:
        return None
    if str(path) == "-":
        return sys.stdout
    return open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8", errors="replace")
