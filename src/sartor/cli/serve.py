"""The command that serves a model over HTTP: serve."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.base.permissions import Permissions
from sartor.cli.arguments import Settings, with_permissions
from sartor.cli.evaluate import Target, target_or_config


# A command's options are its signature.
@with_permissions
def serve(
    target: Target,
    settings: Settings = None,
    host: Annotated[str, typer.Option(help="The address; others than loopback need SARTOR_API_KEY.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0: any free one.", min=0, max=65535)] = 8000,
    name: Annotated[str | None, typer.Option(help="The model's name for clients; default: the run's.")] = None,
    rows: Annotated[int, typer.Option(help="Answers written at the same time.", min=1)] = 64,
    waiting: Annotated[int, typer.Option(help="Answers that may wait in line; more get 429.", min=1)] = 256,
    *,
    permissions: Permissions,
) -> None:
    """Serve a run or a model as OpenAI's API: /v1/chat/completions, /v1/models, /health, /metrics."""
    from sartor.cli import console
    from sartor.server.run import serve as serve_model

    def ready(address: str, model: str) -> None:
        console.line(f"Serving [bold]{model}[/] at [bold]{address}/v1[/]  (Ctrl-C ends)")

    serve_model(
        target_or_config(target, settings, permissions),
        host=host,
        port=port,
        name=name,
        rows=rows,
        waiting=waiting,
        on_ready=ready,
    )


def add_to(app: typer.Typer) -> None:
    app.command()(serve)
