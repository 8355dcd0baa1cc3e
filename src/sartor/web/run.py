"""Starts the page: opens the folder, binds the address, serves until a signal; refuses an open door."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sartor.base.errors import ConfigError
from sartor.server.run import address_of, bound, is_loopback

PASSWORD = "SARTOR_WEB_PASSWORD"
"""The environment variable with the password for other addresses than loopback."""


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    model_dirs: Sequence[Path] = (),
    hosts: Sequence[str] = (),
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the page of a folder until SIGINT or SIGTERM; `on_ready(address)` is called before the first request.

    Works in the folder as if one had gone there (`cd`), so that paths in settings mean the same on the command line.
    Raises: ConfigError for another address than loopback without a password; RunError for a port in use.
    """
    import uvicorn

    password = os.environ.get(PASSWORD) or None
    if not is_loopback(host) and (not password or len(password) < 12):
        what = "The password is too short." if password else f"{host} can be reached by others; there is no password."
        raise ConfigError(what, f"--host {host}", f"Put 12 characters or more into the environment: {PASSWORD}.")
    folder.mkdir(parents=True, exist_ok=True)
    folders = tuple(directory.resolve() for directory in model_dirs)
    os.chdir(folder)
    from sartor.web.app import create_app
    from sartor.web.origin_check import LOOPBACK
    from sartor.web.workspace import Workspace

    with bound(host, port) as listener:
        app = create_app(
            Workspace(Path.cwd().resolve(), folders),
            (*LOOPBACK, host, *hosts),
            any_address=not is_loopback(host),
            password=password if not is_loopback(host) else None,
        )
        if on_ready:
            on_ready(address_of(listener))
        config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])
