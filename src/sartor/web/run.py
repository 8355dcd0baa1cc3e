"""Starts the page: opens the folder, binds the address and serves until a signal."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sartor.base.errors import ConfigError
from sartor.server.run import address_of, bound, is_loopback
from sartor.web.origin_check import LOOPBACK
from sartor.web.workspace import Workspace

PASSWORD = "SARTOR_WEB_PASSWORD"
"""Environment variable with the password; required for addresses other than loopback."""


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

    Changes the working directory to the folder, so that paths in settings mean the same as on the command line.
    Raises: ConfigError for an address other than loopback without a password; RunError for a port in use.
    """
    import uvicorn

    password = os.environ.get(PASSWORD) or None
    if not is_loopback(host) and (not password or len(password) < 12):
        raise ConfigError(
            "The password is too short."
            if password
            else "{host} can be reached from other machines, and there is no password.",
            f"--host {host}",
            "Set {variable} to at least 12 characters.",
            host=host,
            variable=PASSWORD,
        )
    folder.mkdir(parents=True, exist_ok=True)
    folders = tuple(directory.resolve() for directory in model_dirs)
    os.chdir(folder)
    from sartor.web.app import create_app

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
