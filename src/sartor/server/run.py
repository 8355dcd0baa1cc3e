"""Starts the server: loads the engine, binds the address, and serves until a signal; decides who may be let in."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

from sartor.api.predicting import load_engine, trained_run
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, RunError

KEY = "SARTOR_API_KEY"
"""The environment variable with the API key; a key on a command line could be read by every user of the machine."""


def serve(
    config: RunConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    rows: int = 64,
    waiting: int = 256,
    on_ready: Callable[[str, str], None] | None = None,
) -> None:
    """Serve a model until SIGINT or SIGTERM. `on_ready(address, model name)` is called before the first request.

    Raises: ConfigError for another address than loopback without a key; RunError for a port in use; ModelError.
    """
    import uvicorn

    from sartor.server.app import ServerSettings, create_app
    from sartor.server.schemas import Limits

    key = os.environ.get(KEY) or None
    refuse_open_door(host, key)
    with bound(host, port) as listener:
        engine = load_engine(config)
        run = trained_run(config)
        name = name or (run.name if run else config.model.model_name_or_path.rstrip("/").rpartition("/")[2])
        limits = replace(Limits(), rows=rows, waiting=waiting)
        app = create_app(engine, ServerSettings(name, config.generation, limits, key))
        if on_ready:
            on_ready(address_of(listener), name)
        uvicorn.Server(
            uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=5, ws="none")
        ).run(sockets=[listener])


def refuse_open_door(host: str, key: str | None) -> None:
    """Raises: ConfigError for an address that others can reach, without a key of at least 16 characters."""
    if is_loopback(host) or (key and len(key) >= 16):
        return
    what = "The API key is too short." if key else f"{host} can be reached by others, and there is no API key."
    raise ConfigError(what, f"--host {host}", f"Put a key of 16 characters or more into the environment: {KEY}.")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: RunError when the port is in use or the address is none of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise RunError(f"Cannot listen: {reason}.", f"{host}:{port}", "Choose another with --port.") from None
    return listener


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
