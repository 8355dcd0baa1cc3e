"""The command that opens the browser page: web."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def web(
    folder: Annotated[Path, typer.Argument(help="The folder to work in; it gets data/, runs/ and uploads/.")] = Path(),
    host: Annotated[
        str, typer.Option(help="The address; others than loopback need SARTOR_WEB_PASSWORD.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0: any free one.", min=0, max=65535)] = 8080,
    model_dir: Annotated[list[Path] | None, typer.Option(help="A folder of models to choose from.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A further name by which the page is reached.")] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
) -> None:
    """Open the browser page on a folder: bring data, train, watch, measure, chat, take the model home."""
    import webbrowser

    from sartor.base.errors import ConfigError
    from sartor.cli import console

    try:
        from sartor.web.run import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"The page needs {error.name}.", "sartor web", "pip install 'sartor[web]'") from None

    def ready(address: str) -> None:
        console.line(f"Sartor is open at [bold]{address}[/]  (Ctrl-C ends; training goes on)")
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
