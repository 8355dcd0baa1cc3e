"""Commands that train: train, estimate, runs, rerun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sartor.base.i18n import tr
from sartor.base.permissions import Permissions
from sartor.cli import next_step
from sartor.cli.arguments import Json, Settings, settings_file, with_permissions

Fresh = Annotated[bool, typer.Option("--fresh", help="Move an unfinished run to the trash and start over.")]
AllowChanged = Annotated[bool, typer.Option("--allow-changed", help="Resume even if data or settings changed.")]


@with_permissions
def train(
    settings: Settings = None,
    fresh: Fresh = False,
    allow_changed: AllowChanged = False,
    no_preflight: Annotated[bool, typer.Option("--no-preflight", help="Skip the trial of the longest batch.")] = False,
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Fine-tune a model on a dataset. The same command again resumes the run."""
    from sartor import api
    from sartor.cli import console

    file, words = settings_file(settings)
    given = api.training_settings(file, words, fresh=fresh)
    if not json:
        console.print_without_effect(given, "plan.json")
    with console.TrainingProgress(quiet=json, defaults=given.defaults) as progress:
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
    """Estimate memory, time, disk and steps of a training run from a few real steps. Trains nothing."""
    from sartor import api
    from sartor.cli import console

    file, words = settings_file(settings)
    if not json:
        console.print_without_effect(api.training_settings(file, words))
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
        value = getattr(plan, name, "–")
        shown = console.settings_line(value) if isinstance(value, dict) else str(value)
        console.line(f"  [dim]{name:<18} {escape(shown)}: {escape(str(reason))}[/]")


def print_run(run: Any) -> None:
    """The results of a training run, and the next step."""
    from sartor.cli import console

    if run.already_finished:
        done = tr(
            "{run} is already finished; set overwrite_output_dir=true to train again.", run=f"[bold]{run.dir.path}[/]"
        )
        console.line(str(done))
    for key in ("train_loss", "eval_loss", "train_runtime", "train_samples_per_second"):
        if run.results.get(key) is not None:
            console.line(f"  {key:<26} {run.results[key]:.4g}")
    if run.estimate:
        for name, unit in (("seconds", "s"), ("peak_memory_bytes", "GB")):
            predicted, actual = run.estimate[name], run.results["total_seconds" if unit == "s" else name]
            scale = 1 if unit == "s" else 1e9
            numbers = tr(
                "{predicted:.3g} {unit}, actual {actual:.3g} {unit} ({error:+.0%})",
                predicted=predicted / scale,
                actual=actual / scale,
                unit=unit,
                error=predicted / actual - 1,
            )
            label = tr("predicted time") if unit == "s" else tr("predicted memory")
            console.line(f"  {label:<26} {numbers}")
    console.line(f"  {tr('run folder'):<26} {run.dir.path}")
    next_step.print_next(*next_step.after_training(run.dir))


def runs(
    folder: Annotated[Path, typer.Argument(help="The folder with the runs.")] = Path("runs"), json: Json = False
) -> None:
    """List runs with state, model, data, loss and verdict."""
    from sartor import api
    from sartor.cli import console

    found = api.runs(folder)
    if json:
        console.print_json([run.to_json() for run in found])
        return
    if not found:
        console.line(escape(str(tr("No runs in {folder}. Start one: sartor train dataset=NAME", folder=folder))))
    table = Table(box=None, pad_edge=False)
    for column in (
        tr("run"),
        tr("state"),
        tr("step"),
        tr("loss"),
        tr("held out"),
        tr("verdict"),
        tr("model"),
        tr("data"),
    ):
        right = column.message in ("step", "loss", "held out")
        table.add_column(str(column), justify="right" if right else "left")
    for run in found:
        row = (run.name, run.state, run.step, run.loss, run.eval_loss, run.verdict, run.model, run.data)
        table.add_row(*(escape(f"{v:.3f}" if isinstance(v, float) else str(v if v is not None else "–")) for v in row))
    if found:
        console.out.print(table)
    for run in found:
        if run.problem:
            console.line(f"  [red]{escape(run.name)}[/]: {console.plain(run.problem)}")


@with_permissions
def rerun(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    output_dir: Annotated[Path | None, typer.Option(help="The new run's folder; default: <run>-rerun.")] = None,
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Repeat a run from its folder, after verifying that its data is unchanged."""
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
