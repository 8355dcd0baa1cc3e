"""Commands about data: import, check, show, split, generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from sartor.base.errors import ConfigError
from sartor.base.permissions import Permissions
from sartor.cli.arguments import DatasetDir, Json, Settings, config_of, with_permissions


def import_(
    file: Annotated[Path, typer.Argument(help="A csv, json or jsonl file of any encoding.")],
    name: Annotated[str, typer.Option("--name", help="The dataset's name in dataset_info.json.")],
    encoding: Annotated[str | None, typer.Option(help="Text encoding; detected when not given.")] = None,
    question: Annotated[str | None, typer.Option(help="The column of the question.")] = None,
    answer: Annotated[str | None, typer.Option(help="The column of the answer.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="field=COLUMN, for any other field.")] = None,
    format: Annotated[str, typer.Option(help="sharegpt or alpaca.")] = "sharegpt",
    delimiter: Annotated[str | None, typer.Option(help="What stands between cells; found when not given.")] = None,
    dataset_dir: DatasetDir = Path("data"),
    json: Json = False,
) -> None:
    """Make a checked dataset from a file and register it in dataset_info.json."""
    from sartor import api
    from sartor.cli import console

    columns = dict(_field_and_column(item) for item in column or ())
    imported = api.import_file(
        file,
        name,
        dataset_dir=dataset_dir,
        encoding=encoding,
        question=question,
        answer=answer,
        columns=columns,
        format=format,
        delimiter="\t" if delimiter == "\\t" else delimiter,
    )
    if json:
        facts = {"name": name, "file": str(imported.dataset_file), "entry": imported.entry}
        encoding, ledger = imported.inspection.encoding, api.ledger_json(imported.loaded.ledger)
        console.print_json({**facts, "encoding": encoding, "ledger": ledger})
        return
    print_imported(imported, name, dataset_dir)


def print_imported(imported: Any, name: str, dataset_dir: Path) -> None:
    """What was understood, three rows of it, the ledger, and what to do next."""
    from sartor.cli import console

    understood = imported.inspection
    delimiter = f", separated by {understood.delimiter!r}" if understood.delimiter else ""
    console.line(f"[bold]{escape(name)}[/]  {understood.encoding} ({escape(str(understood.how))}){delimiter}")
    console.line(f"  columns: {escape(', '.join(repr(c) for c in understood.columns))}")
    mapping = ", ".join(f"{field} = {column!r}" for field, column in understood.mapping.items())
    console.line(f"  read as: {escape(mapping)}")
    for example in imported.loaded.examples[:3]:
        for message in getattr(example, "messages", ()):
            sign = "[cyan]?[/]" if message.role == "user" else "[green]→[/]"
            console.line(f"  {sign} {escape(message.text)}")
    console.print_ledger(imported.loaded.ledger, name)
    console.line(f"  written: {imported.dataset_file} and its entry in {dataset_dir / 'dataset_info.json'}")
    console.line(f"  next: [bold]sartor show {escape(name)} --dataset-dir {dataset_dir}[/]")


@with_permissions
def show(
    name: Annotated[str, typer.Argument(help="A dataset's name.")],
    settings: Settings = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The model whose tokenizer and template are used.")
    ] = None,
    row: Annotated[int, typer.Option("--row", help="Which row, from 1.")] = 1,
    dataset_dir: DatasetDir = Path("data"),
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Draw one example as the trainer sees it: the rendered prompt, and which tokens are learned."""
    from sartor import api
    from sartor.cli import console

    given = {"model_name_or_path": model} if model else {}
    config = config_of(settings, permissions, dataset_dir=str(dataset_dir), **given)
    shown = api.show(
        name,
        config,
        row=row,
        on_ledger=console.ledger_printer(name, json),
    )
    if json:
        console.print_json(shown.to_json())
        return
    console.out.print(shown)


@with_permissions
def check(
    name: Annotated[str, typer.Argument(help="A dataset's name.")],
    settings: Settings = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Write the skipped rows with their reasons here (JSONL).")
    ] = None,
    fix: Annotated[Path | None, typer.Option(help="Write a copy with the safe mendings done here (JSON).")] = None,
    dataset_dir: DatasetDir = Path("data"),
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Find what is wrong or odd in a dataset: faults, repeats, contradictions, residue, lengths; exit 1 on faults."""
    from sartor import api
    from sartor.cli import console

    config = config_of(settings, permissions, dataset_dir=str(dataset_dir))
    with console.progress_bar("encoding", json) as progress:
        found = api.check(
            name,
            config,
            rejects=rejects,
            fix=fix,
            progress=progress,
        )
    if json:
        console.print_json(found.result.to_json() | {"fixed": found.fixed.summary if found.fixed else None})
    else:
        console.out.print(found.result.rich())
        if found.rejected is not None:
            console.line(f"  {found.rejected} skipped rows with reasons: {rejects}")
        if found.fixed is not None:
            console.line(f"  {found.fixed.rows} rows, {len(found.fixed.changes)} mendings: {fix}")
            for said in found.fixed.lines():
                console.line(f"    {escape(said)}")
    if found.result.errors:
        raise typer.Exit(1)


@with_permissions
def split(
    name: Annotated[str, typer.Argument(help="A dataset's name.")],
    val_size: Annotated[float, typer.Option(help="Rows to hold out: a fraction below 1, or a count.")] = 0.1,
    seed: Annotated[int, typer.Option(help="What the rows are drawn from.")] = 42,
    by: Annotated[
        str | None, typer.Option(help="A column: rows of one value stay on one side (`section`: the source section).")
    ] = None,
    held_out: Annotated[
        list[str] | None, typer.Option("--held-out", help="With --by: a value to hold out, instead of drawing.")
    ] = None,
    dataset_dir: DatasetDir = Path("data"),
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Decide which rows are held out, and save it: train, predict, compare and check use the same rows from then on."""
    from sartor import api
    from sartor.cli import console

    divided = api.split(
        name,
        dataset_dir,
        val_size=val_size,
        seed=seed,
        by=by,
        held_out=held_out or (),
        permissions=permissions,
    )
    saved = divided.saved
    if json:
        leaks = [
            {"held_out": leak.held_out, "train": leak.train, "similarity": leak.similarity} for leak in divided.leaks
        ]
        ids = {"train": list(saved.train), "held_out": list(saved.held_out)}
        console.print_json({"name": name, "file": str(divided.path), "by": saved.by, **ids, "leaks": leaks})
        return
    console.line(f"[bold]{escape(name)}[/]  {len(saved.train):,} rows to learn, {len(saved.held_out):,} held out")
    console.line(f"  {len(divided.leaks):,} held-out rows are nearly the same as a row to learn")
    for leak in divided.leaks[:10]:
        console.line(f"    {escape(leak.held_out)} ~ {escape(leak.train)}  {leak.similarity:.2f}")
    console.line(f"  written: {escape(str(divided.path))}; delete it to split by val_size again")


def _field_and_column(item: str) -> tuple[str, str]:
    field, equals, column = item.partition("=")
    if not equals:
        raise ConfigError(f"{item!r} is no mapping.", "--column", "Write --column field=COLUMN.")
    return field, column


def add_to(app: typer.Typer) -> None:
    app.command("import")(import_)
    app.command()(show)
    app.command()(check)
    app.command()(split)
