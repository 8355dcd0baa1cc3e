"""The command that serves a model over HTTP: serve."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.base.i18n import tr
from sartor.base.permissions import Permissions
from sartor.cli.arguments import Settings, with_permissions
from sartor.cli.evaluate import Target, config_to_answer


# A command's options are its signature.
@with_permissions
def serve(
    target: Target,
    settings: Settings = None,
    host: Annotated[str, typer.Option(help="The address; anything but loopback needs SARTOR_API_KEY.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 picks a free one.", min=0, max=65535)] = 8000,
    name: Annotated[str | None, typer.Option(help="The model name that clients see; default: the run's name.")] = None,
    rows: Annotated[int, typer.Option(help="Answers generated at the same time.", min=1)] = 64,
    waiting: Annotated[int, typer.Option(help="Requests that may wait; further ones get status 429.", min=1)] = 256,
    request_log: Annotated[
        str | None, typer.Option(metavar="FILE", help="Append a JSON line for each request; -: standard output.")
    ] = None,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Write requests and answers to the log.")] = False,
    *,
    permissions: Permissions,
) -> None:
    """Serve a run or a model over an OpenAI-compatible API: /v1/chat/completions, /v1/completions, /v1/models, /health,
    /metrics."""
    from sartor.cli import console
    from sartor.server.run import serve as serve_model

    def ready(address: str, model: str) -> None:
        message = tr(
            "Serving {model} at {address} (Ctrl-C stops)",
            model=console.bold(model),
            address=console.bold(f"{address}/v1"),
        )
        console.line(str(message))

    serve_model(
        config_to_answer(target, settings, permissions),
        host=host,
        port=port,
        name=name,
        rows=rows,
        waiting=waiting,
        request_log=request_log,
        log_texts=log_texts,
        on_ready=ready,
    )


def add_to(app: typer.Typer) -> None:
    app.command()(serve)
