"""The command that makes questions and answers from documents."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from sartor.cli.arguments import DatasetDir, Json


def generate(
    documents: Annotated[list[Path], typer.Argument(metavar="DOC...", help="txt, md, html, pdf, docx or epub.")],
    name: Annotated[str, typer.Option("--name", help="The dataset's name in dataset_info.json.")],
    endpoint: Annotated[str | None, typer.Option(help="An OpenAI-compatible address, ending in /v1.")] = None,
    model: Annotated[str, typer.Option(help="Its model; without an endpoint a local one.")] = "smollm2-135m",
    key_env: Annotated[str | None, typer.Option(help="The environment variable that holds the key.")] = None,
    per_chunk: Annotated[int, typer.Option(min=1, help="Questions asked for each passage.")] = 2,
    language: Annotated[str, typer.Option(help="The prompt's language: en or zh.")] = "en",
    style: Annotated[Path | None, typer.Option(help="Your own prompt file; it names {passage}.")] = None,
    price_in: Annotated[float, typer.Option(help="Price of a million tokens read.")] = 0.0,
    price_out: Annotated[float, typer.Option(help="Price of a million tokens written.")] = 0.0,
    max_cost: Annotated[float | None, typer.Option(help="Stop before spending more than this.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Text encoding; detected when not given.")] = None,
    dataset_dir: DatasetDir = Path("data"),
    json: Json = False,
) -> None:
    """Make questions and answers from documents, each with the quote that proves it; exit 1 when passages failed."""
    from sartor.api.generating import generate as make
    from sartor.cli import screen

    def on_start(plan: dict[str, Any]) -> None:
        screen.err.print(
            f"{plan['passages']} passages, at most {plan['most_tokens_in']:,} tokens read, "
            f"{plan['most_tokens_out']:,} written, costing at most {plan['most_money']:.4g}", soft_wrap=True,
        )  # fmt: skip
        if endpoint is None:
            screen.err.print("  [yellow]·[/] The embedded model is a demonstration; use --endpoint for real data.")

    with screen.progress_bar("asking", json) as progress:
        made = make(
            documents, name, dataset_dir=dataset_dir, encoding=encoding, language=language, style=style,
            per_chunk=per_chunk, model=model, endpoint=endpoint, key_env=key_env, price_in=price_in,
            price_out=price_out, max_cost=max_cost, on_start=on_start, progress=progress,
        )  # fmt: skip
    found = made.generated
    refused = Counter(item.reason for item in found.refused)
    failed = [
        {"document": p.document, "section": p.section, "start": p.start, "reason": why} for p, why in found.failed
    ]
    if json:
        screen.print_json({"pairs": len(found.pairs), "refused": refused, "failed": failed, "asked": found.asked,
                           "reused": found.reused, "csv": made.table, "file": made.dataset_file})  # fmt: skip
    else:
        screen.line(f"[bold]{len(found.pairs)}[/] pairs; {found.asked} asked, {found.reused} from the journal")
        for reason, count in refused.items():
            screen.line(f"  [red]✗[/] {reason} × {count}")
        for item in failed:
            screen.line(f"  [red]failed[/] {escape(str(item))}")
        if made.table:
            screen.line(f"  written: {escape(str(made.table))} and {escape(str(made.dataset_file))}")
    if found.failed or not found.pairs:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    app.command()(generate)
