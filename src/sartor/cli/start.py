"""Commands to begin with: demo and env."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.arguments import Json


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where data and runs go.")] = Path("demo"),
    steps: Annotated[int | None, typer.Option("--max-steps", help="Fewer steps, for a quick look.")] = None,
) -> None:
    """From two CSV files to a tuned model, a verdict and a report."""
    from sartor.cli.demo import run_demo

    run_demo(folder, steps)


def env(json: Json = False) -> None:
    """Print what a bug report needs: versions, processor, memory, devices."""
    from sartor.api.environment import environment
    from sartor.cli import console

    facts = environment()
    if json:
        console.print_json(facts)
        return
    for key, value in facts.items():
        console.line(f"[dim]{key:<14}[/] {value}")


def add_to(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(env)
