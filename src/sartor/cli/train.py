"""Commands that train: train, estimate, runs, rerun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sartor.base.permissions import Permissions
from sartor.cli.arguments import Json, Settings, settings_file, with_permissions

Fresh = Annotated[bool, typer.Option("--fresh", help="Move an unfinished run to the trash and start anew.")]
AllowChanged = Annotated[bool, typer.Option("--allow-changed", help="Resume although data or settings changed.")]


@with_permissions
def train(
    settings: Settings = None,
    fresh: Fresh = False,
    allow_changed: AllowChanged = False,
    no_preflight: Annotated[bool, typer.Option("--no-preflight", help="Do not try the longest batch first.")] = False,
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Fine-tune a model on the rows of a dataset; the same command again resumes."""
    from sartor import api
    from sartor.cli import console

    file, words = settings_file(settings)
    with console.TrainingProgress(quiet=json) as progress:
        run = api.train(
            file,
            words,
            fresh=fresh,
            allow_changed=allow_changed,
            permissions=permissions,
            callbacks=[progress],
            preflight=not no_preflight,
        )
    if json:
        console.print_json({"run": str(run.dir.path), "state": run.state, **run.results})
        return
    print_run(run)


@with_permissions
def estimate(
    settings: Settings = None,
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Say what a training will take (memory, time, disk, steps), from a few real steps; trains nothing."""
    from sartor import api
    from sartor.cli import console

    file, words = settings_file(settings)
    found, plan = api.estimate(
        file,
        words,
        permissions=permissions,
    )
    if json:
        console.print_json({"estimate": found.to_json(), "plan": plan.to_json()})
        return
    console.print_estimate(found.to_json())
    for name, reason in plan.reasons.items():
        console.line(f"  [dim]{name:<18} {escape(str(getattr(plan, name, '–')))}: {escape(str(reason))}[/]")


def print_run(run: Any) -> None:
    """How a training ended, and what to do next."""
    from sartor.cli import console

    if run.already_finished:
        console.line(f"[bold]{run.dir.path}[/] is finished; nothing was done (overwrite_output_dir=true anew).")
    for key in ("train_loss", "eval_loss", "train_runtime", "train_samples_per_second"):
        if run.results.get(key) is not None:
            console.line(f"  {key:<26} {run.results[key]:.4g}")
    if run.estimate:
        for name, unit in (("seconds", "s"), ("peak_memory_bytes", "GB")):
            said, was = run.estimate[name], run.results["total_seconds" if unit == "s" else name]
            scale = 1 if unit == "s" else 1e9
            console.line(
                f"  {'predicted ' + ('time' if unit == 's' else 'memory'):<26} {said / scale:.3g} {unit}, "
                f"was {was / scale:.3g} {unit} ({said / was - 1:+.0%})"
            )
    console.line(f"  run folder                 {run.dir.path}")
    console.line(f"  next: [bold]sartor compare {run.dir.path}[/]")


def runs(
    folder: Annotated[Path, typer.Argument(help="The folder that holds runs.")] = Path("runs"), json: Json = False
) -> None:
    """List runs with their state, model, data, loss and verdict."""
    from sartor import api
    from sartor.cli import console

    found = api.runs(folder)
    if json:
        console.print_json([run.to_json() for run in found])
        return
    if not found:
        console.line(f"No runs in {folder}. Start one: sartor train dataset=NAME")
    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "step", "loss", "held out", "verdict", "model", "data"):
        table.add_column(column, justify="right" if column in ("step", "loss", "held out") else "left")
    for run in found:
        row = (run.name, run.state, run.step, run.loss, run.eval_loss, run.verdict, run.model, run.data)
        table.add_row(*(escape(f"{v:.3f}" if isinstance(v, float) else str(v if v is not None else "–")) for v in row))
    if found:
        console.out.print(table)


@with_permissions
def rerun(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    output_dir: Annotated[Path | None, typer.Option(help="The new run's folder; default: <run>-rerun.")] = None,
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Repeat a run from its folder, after checking that data and model are the same."""
    from sartor import api
    from sartor.cli import console

    with console.TrainingProgress(quiet=json) as progress:
        again = api.rerun(run, output_dir=output_dir, callbacks=[progress], permissions=permissions)
    if json:
        console.print_json({"run": str(again.dir.path), "state": again.state, **again.results})
        return
    print_run(again)


def add_to(app: typer.Typer) -> None:
    for command in (train, estimate, runs, rerun):
        app.command()(command)
