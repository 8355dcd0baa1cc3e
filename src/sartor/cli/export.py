"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.base.permissions import Permissions
from sartor.cli.arguments import Json, Settings, with_permissions
from sartor.cli.evaluate import Target, target_or_config


# A command's options are its signature.
@with_permissions
def export(
    target: Target,
    settings: Settings = None,
    to: Annotated[str, typer.Option(help="Export format; docs/reference/plugins.md lists them.")] = "merged",
    out: Annotated[Path | None, typer.Option(help="Output folder; default: export_dir, else beside the run.")] = None,
    quant: Annotated[str | None, typer.Option(help="Quantization, in formats that have one.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Type of the weights, in formats that have one; default: the model's.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Run the self-check where the format makes it optional.")] = True,
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Export a model to another format, and verify that it answers the same."""
    from sartor import api
    from sartor.cli import console

    config = target_or_config(target, settings, permissions)
    done = api.export(
        config,
        to,
        out or config.export.export_dir or _beside(target, to),
        quant=quant,
        dtype=dtype,
        check=check,
    )
    if json:
        console.print_json(
            {
                "folder": str(done.folder),
                "files": [path.name for path in done.files],
                "checks": [check.to_json() for check in done.checks],
                "notes": [note.to_json() for note in done.notes],
            }
        )
        return
    for note in done.notes:
        console.line(f"  [yellow]·[/] {console.plain(note)}")
    for found in done.checks:
        console.line(f"  [green]✓[/] {found}")
    for path in done.files:
        console.line(f"  {path.stat().st_size / 1e6:10.1f} MB  {path}")


def _beside(target: str, to: str) -> Path | None:
    return Path(target).with_name(f"{Path(target).name}-{to}") if Path(target).is_dir() else None


def add_to(app: typer.Typer) -> None:
    app.command()(export)
