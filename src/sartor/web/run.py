"""Starts the page: opens the folder, binds the address and serves until a signal."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sartor.base.errors import ConfigError
from sartor.server.host_names import is_loopback
from sartor.server.run import address_of, bound, uvicorn_server
from sartor.web.origin_check import LOOPBACK
from sartor.web.workspace import Workspace

PASSWORD = "SARTOR_WEB_PASSWORD"
"""Environment variable with the password: asked for wherever it is set, required beyond loopback."""
MIN_PASSWORD = 12


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
    Raises: ConfigError for an address or host name other than loopback without a password, and for a short one;
    RunError for a port in use.
    """
    password = os.environ.get(PASSWORD) or None
    require_password(password, (host, *hosts))
    folder.mkdir(parents=True, exist_ok=True)
    folders = tuple(directory.resolve() for directory in model_dirs)
    os.chdir(folder)
    from sartor.web.app import create_app

    with bound(host, port) as listener:
        app = create_app(
            Workspace(Path.cwd().resolve(), folders),
            (*LOOPBACK, host, *hosts),
            any_address=not is_loopback(host),
            password=password,
        )
        if on_ready:
            on_ready(address_of(listener))
        uvicorn_server(app, timeout_graceful_shutdown=2).run(sockets=[listener])


def require_password(password: str | None, names: Sequence[str]) -> None:
    """Raises: ConfigError for a short password, or none where others could reach the page under one of `names`."""
    if password is not None and len(password) < MIN_PASSWORD:
        raise ConfigError(
            "The password is too short.", PASSWORD, "Set {variable} to at least 12 characters.", variable=PASSWORD
        )
    public = next((name for name in names if not is_loopback(name)), None)
    if password is None and public is not None:
        raise ConfigError(
            "{host} can be reached from other machines, and there is no password.",
            f"--host {public}" if public == names[0] else f"--allow-host {public}",
            "Set {variable} to at least 12 characters.",
            host=public,
            variable=PASSWORD,
        )
