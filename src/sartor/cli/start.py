"""The commands demo and env."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.arguments import Json


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="The folder for data and runs.")] = Path("demo"),
    steps: Annotated[int | None, typer.Option("--max-steps", help="Train for fewer steps.")] = None,
) -> None:
    """From two CSV files to a fine-tuned model, a verdict and a report."""
    from sartor.cli.demo import run_demo

    run_demo(folder, steps)


def env(json: Json = False) -> None:
    """Print versions, processor, memory and devices, for a bug report."""
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
