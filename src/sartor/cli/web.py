"""The command that opens the browser page: web."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from sartor.base.errors import ConfigError
from sartor.base.i18n import tr


def web(
    folder: Annotated[
        Path, typer.Argument(help="The folder to work in; data/, runs/ and uploads/ are created there.")
    ] = Path(),
    host: Annotated[
        str, typer.Option(help="The address; anything but loopback needs SARTOR_WEB_PASSWORD.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 picks a free one.", min=0, max=65535)] = 8080,
    model_dir: Annotated[list[Path] | None, typer.Option(help="A folder of models to choose from.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another host name of the page.")] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
) -> None:
    """Open the browser page for a folder: import data, train, monitor, evaluate, chat, export."""

    from sartor.cli import console

    try:
        from sartor.web.run import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            "sartor web needs {package}.", "sartor web", "pip install 'sartor[web]'", package=error.name
        ) from None

    def ready(address: str) -> None:
        message = tr(
            "Sartor is open at {address} (Ctrl-C stops the page; training continues)", address=console.bold(address)
        )
        console.line(str(message))
        if open_browser:
            webbrowser.open(address)

    serve(
        folder,
        host=host,
        port=port,
        model_dirs=model_dir or (),
        hosts=allow_host or (),
        on_ready=ready,
    )


def add_to(app: typer.Typer) -> None:
    app.command()(web)
