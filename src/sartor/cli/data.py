"""Commands about datasets: import, show, check, split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sartor.base.errors import ConfigError
from sartor.base.i18n import ntr, tr
from sartor.base.permissions import Permissions
from sartor.base.reasons import fix_of, reason_of
from sartor.cli import next_step
from sartor.cli.arguments import DatasetDir, DatasetDirSetting, Json, Settings, settings_file, with_permissions

if TYPE_CHECKING:
    from sartor.base.config import RunConfig
    from sartor.base.types import Example

MAX_SHOWN = 160
"""Characters of a text in the preview of an import."""


# A command's options are its signature.
def import_(
    file: Annotated[Path, typer.Argument(help="A CSV, JSON or JSONL file in any encoding.")],
    name: Annotated[str, typer.Option("--name", help="The dataset's name in dataset_info.json.")],
    encoding: Annotated[str | None, typer.Option(help="Text encoding; detected when not given.")] = None,
    question: Annotated[str | None, typer.Option(help="The question column.")] = None,
    answer: Annotated[str | None, typer.Option(help="The answer column.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="FIELD=COLUMN, for any other field.")] = None,
    format: Annotated[str, typer.Option(help="sharegpt or alpaca.")] = "sharegpt",
    delimiter: Annotated[str | None, typer.Option(help="The delimiter; detected when not given.")] = None,
    sheet: Annotated[str | None, typer.Option(help="The sheet of a spreadsheet; all of them when not given.")] = None,
    new_version: Annotated[
        bool, typer.Option("--new-version", help="If the dataset exists, import as a new version (NAME-v2).")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="If the dataset exists, replace it; the old one is kept in .trash.")
    ] = False,
    dataset_dir: DatasetDir = Path("data"),
    json: Json = False,
) -> None:
    """Turn a file into a dataset and register it in dataset_info.json."""
    from sartor import api
    from sartor.cli import console

    if new_version and overwrite:
        raise ConfigError("--new-version and --overwrite exclude each other.", tr("command line"), "Choose one.")
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
        sheet=sheet,
        existing="version" if new_version else "overwrite" if overwrite else "refuse",
    )
    if json:
        facts = {"name": imported.name, "file": str(imported.dataset_file), "entry": imported.entry}
        encoding, ledger = imported.inspection.encoding, api.ledger_json(imported.loaded.ledger)
        console.print_json({**facts, "encoding": encoding, "stage": imported.inspection.stage, "ledger": ledger})
        return
    print_imported(imported, dataset_dir)


def print_imported(imported: Any, dataset_dir: Path) -> None:
    """How the file was read, three of its rows, the ledger, and the next step."""
    from sartor.cli import console
    from sartor.data.import_record import record_path

    inspection, name = imported.inspection, imported.name
    delimiter = tr(", delimiter {delimiter!r}", delimiter=inspection.delimiter) if inspection.delimiter else ""
    how = escape(str(inspection.how))
    console.line(f"[bold]{escape(name)}[/]  {inspection.encoding} ({how}){delimiter}")
    console.line(f"  {tr('columns')}: {escape(', '.join(repr(c) for c in inspection.columns))}")
    read_as = inspection.mapping or {
        "formatting": inspection.entry["formatting"],
        **inspection.entry.get("columns", {}),
    }
    mapping = ", ".join(f"{field} = {column!r}" for field, column in read_as.items())
    console.line(f"  {tr('read as')}: {escape(mapping)}")
    kind = f"rows-{inspection.stage}"
    console.line(f"  {tr('kind')}: {console.plain(reason_of(kind, {}))}")
    if fix := fix_of(kind, {}):
        console.line(f"    → {console.plain(fix)}")
    for example in imported.loaded.examples[:3]:
        for sign, words in _turns(example):
            console.line(f"  {sign} {escape(_shortened(words))}")
    console.print_ledger(imported.loaded.ledger, name)
    written = tr(
        "Wrote {file} and its entry in {registry}",
        file=imported.dataset_file,
        registry=dataset_dir / "dataset_info.json",
    )
    console.line(f"  {escape(str(written))}")
    if (record := record_path(dataset_dir, name)).exists() and imported.loaded.skipped:
        kept = tr("Each row that was not imported is in {file}, with its reason and its text", file=record)
        console.line(f"  {escape(str(kept))}")
    stage = () if inspection.stage == "sft" else (f"stage={inspection.stage}",)
    folder = () if dataset_dir == Path("data") else ("--dataset-dir", dataset_dir)
    next_step.print_next(next_step.command("show", name, *stage, *folder))


def _turns(example: Example) -> list[tuple[str, str]]:
    """A sign and the text of each part of an example."""
    from sartor.base.types import Document, Preference

    if isinstance(example, Document):
        return [("[green]→[/]", example.text)]
    messages = example.prompt if isinstance(example, Preference) else example.messages
    turns = [("[cyan]?[/]" if m.role == "user" else "[green]→[/]", m.text) for m in messages]
    if isinstance(example, Preference):
        turns += [("[green]✓[/]", example.chosen.text), ("[red]✗[/]", example.rejected.text)]
    return turns


def _shortened(text: str) -> str:
    """The beginning of a long text, on one line."""
    words = " ".join(text[: 2 * MAX_SHOWN].split())
    return words if len(words) <= MAX_SHOWN else f"{words[:MAX_SHOWN]}…"


@with_permissions
def show(
    name: Annotated[str, typer.Argument(help="A dataset's name.")],
    settings: Settings = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The model whose tokenizer and template are used.")
    ] = None,
    row: Annotated[int, typer.Option("--row", help="The row, from 1.")] = 1,
    dataset_dir: DatasetDirSetting = None,
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Show an example as the trainer sees it: the rendered prompt, and which tokens have labels."""
    from sartor import api
    from sartor.cli import console

    given = {"model_name_or_path": model} if model else {}
    config = _as_trained(settings, permissions, dataset_dir, **given)
    view = api.show(
        name,
        config,
        row=row,
        on_ledger=console.ledger_printer(name, json),
    )
    if json:
        console.print_json(view.to_json())
        return
    console.out.print(view)
    next_step.print_next(next_step.to_train(name, settings, dataset_dir, model))


# A command's options are its signature.
@with_permissions
def check(
    name: Annotated[str, typer.Argument(help="A dataset's name.")],
    settings: Settings = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Write the skipped rows and their reasons to this JSONL file.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Write a copy with the safe fixes applied to this JSON file.")
    ] = None,
    remove_repeats: Annotated[
        bool, typer.Option("--remove-repeats", help="With --fix: leave out rows that repeat an earlier one.")
    ] = False,
    mask_personal: Annotated[
        bool, typer.Option("--mask-personal", help="With --fix: mask e-mail addresses, phone and identity numbers.")
    ] = False,
    dataset_dir: DatasetDirSetting = None,
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Find problems in a dataset: errors, duplicates, contradictions, leftover markup, lengths. Exit 1 on errors."""
    from sartor import api
    from sartor.cli import console

    config = _as_trained(settings, permissions, dataset_dir)
    with console.progress_bar("encoding", json) as progress:
        found = api.check(
            name,
            config,
            rejects=rejects,
            fix=fix,
            remove_repeats=remove_repeats,
            mask_personal=mask_personal,
            progress=progress,
        )
    if json:
        console.print_json(found.result.to_json() | {"fixed": found.fixed.summary if found.fixed else None})
    else:
        console.out.print(found.result.rich())
        if found.rejected is not None:
            skipped = ntr("{count} skipped row", "{count} skipped rows", count=found.rejected)
            console.line(f"  {skipped}: {rejects}")
        if found.fixed is not None:
            rows = ntr("{count} row", "{count} rows", count=found.fixed.rows)
            fixes = ntr("{count} fix", "{count} fixes", count=len(found.fixed.changes))
            console.line(f"  {rows}, {fixes}: {fix}")
            for change in found.fixed.lines():
                console.line(f"    {escape(change)}")
    if found.result.errors:
        raise typer.Exit(1)
    if not json:
        next_step.print_next(next_step.to_train(name, settings, dataset_dir))


# A command's options are its signature.
@with_permissions
def split(
    name: Annotated[str, typer.Argument(help="A dataset's name.")],
    val_size: Annotated[float, typer.Option(help="Rows to hold out: a fraction below 1, or a count.")] = 0.1,
    seed: Annotated[int, typer.Option(help="The random seed.")] = 42,
    by: Annotated[
        str | None,
        typer.Option(help="A column whose rows with the same value stay together (`section`: the source section)."),
    ] = None,
    held_out: Annotated[
        list[str] | None, typer.Option("--held-out", help="With --by: a value to hold out, instead of random ones.")
    ] = None,
    dataset_dir: DatasetDir = Path("data"),
    json: Json = False,
    *,
    permissions: Permissions,
) -> None:
    """Choose the held-out rows of a dataset and save them, for train, predict, compare and check."""
    from sartor import api
    from sartor.cli import console

    result = api.split(
        name,
        dataset_dir,
        val_size=val_size,
        seed=seed,
        by=by,
        held_out=held_out or (),
        permissions=permissions,
    )
    saved = result.saved
    if json:
        leaks = [
            {"held_out": leak.held_out, "train": leak.train, "similarity": leak.similarity} for leak in result.leaks
        ]
        ids = {"train": list(saved.train), "held_out": list(saved.held_out)}
        console.print_json({"name": name, "file": str(result.path), "by": saved.by, **ids, "leaks": leaks})
        return
    counts = tr("{train:,} training rows, {held_out:,} held out", train=len(saved.train), held_out=len(saved.held_out))
    console.line(f"[bold]{escape(name)}[/]  {counts}")
    leaks_found = ntr(
        "{count:,} held-out row is nearly the same as a training row",
        "{count:,} held-out rows are nearly the same as a training row",
        count=len(result.leaks),
    )
    console.line(f"  {leaks_found}")
    for leak in result.leaks[:10]:
        console.line(f"    {escape(leak.held_out)} ~ {escape(leak.train)}  {leak.similarity:.2f}")
    console.line(f"  {escape(str(tr('Wrote {file}; delete it to split by val_size again', file=result.path)))}")


def _as_trained(
    settings: list[str] | None, permissions: Permissions, dataset_dir: Path | None, **given: Any
) -> RunConfig:
    """The settings that `train` would use with these words: a row that is too long for it is too long here."""
    from sartor import api

    file, words = settings_file(settings)
    if dataset_dir:
        given["dataset_dir"] = str(dataset_dir)
    return api.training_settings(file, words, **given).allowing(permissions)


def _field_and_column(item: str) -> tuple[str, str]:
    field, equals, column = item.partition("=")
    if not equals:
        raise ConfigError("Invalid column mapping {item!r}.", "--column", "Pass --column FIELD=COLUMN.", item=item)
    return field, column


def add_to(app: typer.Typer) -> None:
    app.command("import")(import_)
    app.command()(show)
    app.command()(check)
    app.command()(split)
