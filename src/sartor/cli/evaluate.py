"""Commands that evaluate a model: predict, score, compare, report, chat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sartor.base.config import RunConfig
from sartor.base.i18n import ntr, tr
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.rundir import RunDir
from sartor.cli import next_step
from sartor.cli.arguments import Json, Settings, config_of, with_permissions

if TYPE_CHECKING:
    from sartor.evaluation.verdict import Verdict

Target = Annotated[
    str, typer.Argument(metavar="RUN|MODEL|FILE.yaml", help="A run folder, a model, or a settings file.")
]


@with_permissions
def predict(
    target: Target,
    settings: Settings = None,
    shard: Annotated[str | None, typer.Option(help="Answer only part i of n: i/n.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Join the parts; fail if a row is missing.")] = False,
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Answer the held-out rows of a run, or the eval_dataset of a settings file, and score the answers."""
    from sartor import api
    from sartor.cli import console

    with console.progress_bar(tr("answering"), json) as progress:
        predictions = api.predict(
            target_or_config(target, settings, permissions),
            shard=shard,
            merge=merge,
            progress=progress,
            on_ledger=console.ledger_printer(tr("data"), json),
        )
    if json:
        console.print_json({"folder": str(predictions.folder), **predictions.results})
        return
    seen = sum(row.seen_in_training for row in predictions.rows)
    if seen:
        warning = ntr(
            "{seen} of {count} row is a training row: its score shows memory, not skill.",
            "{seen} of {count} rows are training rows: their scores show memory, not skill.",
            count=len(predictions.rows),
            seen=seen,
        )
        console.line(f"[bold yellow]{console.plain(warning)}[/]")
    console.print_scores(predictions.scores, ntr("{count} answer", "{count} answers", count=len(predictions.rows)))
    console.line(f"  {console.plain(tr('Wrote {file}', file=predictions.folder))}")
    if predictions.folder.parent.name == "predictions" and shard is None:
        next_step.print_next(next_step.command("compare", predictions.folder.parent.parent))


def score(
    file: Annotated[Path, typer.Argument(help="A JSONL file with `predict` and `label` in each line.")],
    metrics: Annotated[str, typer.Option(help="Metric names, comma-separated, or all.")] = "all",
    json: Json = False,
) -> None:
    """Score a file of predictions, whatever program made it."""
    from sartor import api
    from sartor.cli import console
    from sartor.evaluation.score import score_json

    scores = api.score_file(file, tuple(name.strip() for name in metrics.split(",")))
    if json:
        console.print_json({name: score_json(score) for name, score in scores.items()})
        return
    console.print_scores(scores, str(file))


@with_permissions
def compare(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN | A B… [KEY=VALUE]...",
            help="One run: base against tuned. Several runs, checkpoints, models, `base` or http://…/v1#MODEL: each "
            "against the first.",
        ),
    ],
    seeds: Annotated[
        int, typer.Option(help="Train with this many seeds in all and show the spread (one run).", min=1)
    ] = 1,
    margin: Annotated[
        float | None, typer.Option(help="The smallest difference in the primary metric that is worth having.", min=0)
    ] = None,
    key_env: Annotated[str | None, typer.Option(help="The environment variable with an endpoint's key.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder for a comparison of several models.")] = None,
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Compare base and tuned model on the held-out rows, or several models with the first."""
    from sartor import api
    from sartor.cli import console
    from sartor.evaluation.multi_model import Comparison, comparison_table
    from sartor.evaluation.verdict_text import verdict_json

    settings = [word for word in targets if "=" in word and not api.is_endpoint(word)]
    targets = [word for word in targets if word not in settings]
    with console.progress_bar(tr("comparing"), json) as progress:
        if len(targets) > 1:
            found: Verdict | Comparison = api.compare_several(
                *targets,
                overrides=settings,
                margin=margin,
                key_env=key_env,
                out=out,
                progress=progress,
                permissions=permissions,
            )
        else:
            found = api.compare(
                targets[0] if targets else "",
                settings,
                seeds=seeds,
                margin=margin,
                progress=progress,
                on_ledger=console.ledger_printer(tr("data"), json),
                permissions=permissions,
            )
    if json:
        console.print_json(found.to_json() if isinstance(found, Comparison) else verdict_json(found))
    elif isinstance(found, Comparison):
        console.out.print(comparison_table(found))
        for note in found.notes:
            console.line(f"  [yellow]·[/] {escape(str(note))}")
    else:
        print_verdict(found)
        console.line(f"  {escape(str(tr('Report:')))} [bold]{escape(str(api.report(targets[0])))}[/]")
        next_step.print_next(*next_step.after_comparing(RunDir(Path(targets[0]))))


def print_verdict(verdict: Verdict) -> None:
    """The verdict, then each difference with its interval."""
    from sartor.cli import console
    from sartor.evaluation.verdict_text import verdict_panel

    console.out.print(verdict_panel(verdict))


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path | None, typer.Option(help="The output file; default: the run's report.html.")] = None,
) -> None:
    """Write a self-contained HTML report about a run."""
    from sartor import api
    from sartor.cli import console

    console.out.print(str(api.report(run, out)))


@with_permissions
def chat(
    target: Target,
    settings: Settings = None,
    save_to: Annotated[Path | None, typer.Option(help="The JSON file that /save appends to (sharegpt).")] = None,
    *,
    permissions: Permissions,
) -> None:
    """Chat with a model or a run in the terminal; /base shows the base model's answer."""
    from sartor import api

    api.chat(config_to_answer(target, settings, permissions), save_to=save_to)


def target_or_config(
    target: str,
    settings: list[str] | None,
    permissions: Permissions = NOTHING_ALLOWED,
    *,
    unfinished: bool = False,
) -> RunConfig:
    """Settings from a settings file, a run folder (`unfinished`: also one with checkpoints alone), or a model's name or
    path."""
    from sartor.api.resolve_target import config_for

    if target.endswith((".yaml", ".yml", ".json")) or "=" in target:
        from sartor.cli import console

        config = config_of([target, *(settings or ())], permissions)
        console.print_without_effect(config)
        return config
    return config_for(target, settings or (), permissions, unfinished=unfinished)


def config_to_answer(target: str, settings: list[str] | None, permissions: Permissions) -> RunConfig:
    """`target_or_config` for chat and serve, which take an unfinished run's newest checkpoint, and say so."""
    from sartor.cli import console

    config = target_or_config(target, settings, permissions, unfinished=True)
    weights = Path((*config.model.adapter_name_or_path, config.model.model_name_or_path)[0])
    if weights.name.startswith("checkpoint-"):
        console.line(console.plain(tr("Weights of step {step}: {folder}", step=weights.name[11:], folder=weights)))
    return config


def add_to(app: typer.Typer) -> None:
    for command in (predict, score, compare, report, chat):
        app.command()(command)
