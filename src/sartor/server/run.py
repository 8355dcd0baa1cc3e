"""Starts the server: binds the address, loads the engine, and serves until a signal."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sartor.api.predicting import load_engine, trained_run
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, RunError
from sartor.base.i18n import tr
from sartor.server.host_names import is_loopback
from sartor.server.request_log import open_log

if TYPE_CHECKING:
    import uvicorn

    from sartor.server.connections import ConnectionLimits

KEY = "SARTOR_API_KEY"
"""The environment variable with the API key; every user of the machine can read a command line."""


# The options of `sartor serve`.
def serve(
    config: RunConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    rows: int = 64,
    waiting: int = 256,
    request_log: str | Path | None = None,
    log_texts: bool = False,
    on_ready: Callable[[str, str], None] | None = None,
) -> None:
    """Serve a model until SIGINT or SIGTERM. `on_ready(address, model name)` is called once it listens.

    Raises: ConfigError for a non-loopback address without a key; RunError for a port in use; ModelError.
    """
    from sartor.server.app import ServerSettings, create_app
    from sartor.server.schemas import Limits

    key = os.environ.get(KEY) or None
    require_key(host, key)
    log = _log(request_log, log_texts)
    with bound(host, port) as listener:
        engine = load_engine(config)
        run = trained_run(config)
        name = name or (run.name if run else config.model.model_name_or_path.rstrip("/").rpartition("/")[2])
        limits = replace(Limits(), rows=rows, waiting=waiting)
        app = create_app(engine, ServerSettings(name, config.generation, limits, key, log, log_texts))
        if on_ready:
            on_ready(address_of(listener), name)
        uvicorn_server(app, ws="none", timeout_graceful_shutdown=5).run(sockets=[listener])


def _log(path: str | Path | None, texts: bool) -> TextIO | None:
    """Raises: ConfigError for a file that cannot be written, or for texts without a log."""
    if texts and path is None:
        raise ConfigError("There is no request log to write texts to.", "--log-texts", "Add --request-log FILE.")
    try:
        return open_log(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            "Cannot write the request log: {reason}.", path, "Choose another file with --request-log.", reason=reason
        ) from None


def uvicorn_server(app: Any, limits: ConnectionLimits | None = None, **options: Any) -> uvicorn.Server:
    """A server for one application whose connections are limited. `options` are uvicorn's."""
    import uvicorn

    from sartor.server.connections import ConnectionLimits, Connections, limited_protocol

    protocol = limited_protocol(Connections(limits or ConnectionLimits()))
    given = {"log_level": "warning", "server_header": False, "http": protocol, **options}
    return uvicorn.Server(uvicorn.Config(app, **given))


def require_key(host: str, key: str | None) -> None:
    """Raises: ConfigError for a non-loopback address without a key of at least 16 characters."""
    if is_loopback(host) or (key and len(key) >= 16):
        return
    what = (
        tr("The API key is too short.")
        if key
        else tr("{host} is reachable from other machines, but no API key is set.", host=host)
    )
    raise ConfigError(
        what,
        f"--host {host}",
        "Set the environment variable {variable} to a key of 16 characters or more.",
        variable=KEY,
    )


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: RunError when the port is in use or the address is not one of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise RunError(
            "Cannot listen: {reason}.", f"{host}:{port}", "Choose another port with --port.", reason=reason
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
