"""The command that makes questions and answers from documents."""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sartor.base.errors import ConfigError
from sartor.cli.arguments import DatasetDir, Json

if TYPE_CHECKING:
    from sartor.api.generating import GenerationResult
    from sartor.qa_generation.requests_plan import Estimate

STOPPED = {
    "requested": "Stopped as asked; the same command goes on from here.",
    "cap": "Stopped before the next request could pass --max-cost; what there is, is written.",
    "endpoint": "Stopped: the endpoint failed several times on end. The same command goes on from here.",
}
DEMONSTRATION = "The embedded model's questions only show how it works; use --endpoint for data to train on."


def generate(
    documents: Annotated[
        list[Path] | None, typer.Argument(metavar="DOC...", help="txt, md, html, pdf, docx, epub.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The dataset's name; else the first document's.")] = "",
    endpoint: Annotated[str | None, typer.Option(help="An OpenAI-compatible address, ending in /v1.")] = None,
    model: Annotated[str, typer.Option(help="Its model; without an endpoint a local one.")] = "smollm2-135m",
    key_env: Annotated[str | None, typer.Option(help="The environment variable that holds the key.")] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="How many in all, spread over the documents.")] = None,
    per_chunk: Annotated[int | None, typer.Option(min=1, help="Questions asked for each passage (2).")] = None,
    multi_turn: Annotated[bool, typer.Option("--multi-turn", help="Conversations of several turns.")] = False,
    language: Annotated[str | None, typer.Option(help="The prompt's language, en or zh; else found.")] = None,
    style: Annotated[Path | None, typer.Option(help="A text that says how questions should be written.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="Your own prompt file instead of ours.")] = None,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Print our prompt file, to edit.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Requests at once, at most.")] = 8,
    price_in: Annotated[float, typer.Option(min=0, help="Price of a million tokens read.")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0, help="Price of a million tokens written.")] = 0.0,
    max_cost: Annotated[float | None, typer.Option(help="Stop before spending more than this.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Text encoding; detected when not given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would need.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Spend money without asking.")] = False,
    dataset_dir: DatasetDir = Path("data"),
    json: Json = False,
) -> None:
    """Make questions and answers from documents, each with the quote that proves it; exit 1 when passages failed."""
    from sartor.api.generating import estimate_generation
    from sartor.api.generating import generate as make
    from sartor.cli import console

    if show_prompt:
        from sartor.qa_generation.prompt_files import prompt_file

        file = prompt_file(language or "en", multi_turn=multi_turn, small=endpoint is None and model == "smollm2-135m")
        typer.echo(file.read_text(encoding="utf-8"), nl=False)
        return
    if not documents:
        raise ConfigError("No document is named.", "sartor generate DOC...", "Name txt, md, html, pdf, docx or epub.")
    name = name or documents[0].stem
    given: dict[str, Any] = {
        "dataset_dir": dataset_dir,
        "encoding": encoding,
        "language": language,
        "prompt": prompt,
        "style": style,
        "per_chunk": per_chunk,
        "pairs": pairs,
        "multi_turn": multi_turn,
        "model": model,
        "endpoint": endpoint,
        "price_in": price_in,
        "price_out": price_out,
        "workers": workers,
    }
    expected = estimate_generation(documents, name, **given)
    if dry_run and json:
        console.print_json(expected.to_json())
        return
    _tell(expected, endpoint is None, bool(price_in or price_out))
    if dry_run:
        return
    if expected.cost and not yes and sys.stdin.isatty():
        typer.confirm("Go on?", default=True, abort=True, err=True)

    def measured(found: Estimate) -> None:
        if found.basis == "measured" and not json:
            console.err.print(f"  [dim]first answer measured: about {_time(found.seconds)} in all[/]")

    with _stopping() as stop, console.progress_bar("asking", json) as progress:
        made = make(
            documents,
            name,
            **given,
            key_env=key_env,
            max_cost=max_cost,
            stop=stop,
            on_estimate=measured,
            progress=progress,
        )
    _report(made, json, pairs)
    found = made.generated
    if found.failed or not found.pairs or found.stopped in STOPPED:
        raise typer.Exit(1)


def _tell(expected: Estimate, embedded: bool, priced: bool) -> None:
    """What it will need, off the results."""
    from sartor.cli import console

    money = f"; money: about {expected.cost:.4g}, at most {expected.max_cost:.4g}" if priced else ""
    console.err.print(
        f"{expected.passages} passages, {expected.calls} requests ({expected.reused} answers are there already); "
        f"tokens: about {expected.tokens_in:,} read and {expected.tokens_out:,} written, at most "
        f"{expected.max_tokens_in:,} and {expected.max_tokens_out:,}; about {_time(expected.seconds)}, "
        f"assuming {expected.assumed_call_s:g} s a request until the first is measured{money}",
        soft_wrap=True,
    )
    if embedded:
        console.err.print(f"  [yellow]·[/] {DEMONSTRATION}", soft_wrap=True)


def _report(made: GenerationResult, json: bool, wanted: int | None) -> None:
    from sartor.cli import console

    found = made.generated
    rejected = Counter(item.reason for item in found.rejected)
    failed = [
        {"document": p.document, "section": p.section, "start": p.start, "reason": why} for p, why in found.failed
    ]
    if json:
        console.print_json(
            {
                "pairs": len(found.pairs),
                "rejected": rejected,
                "failed": failed,
                "requests": found.requests,
                "reused": found.reused,
                "stopped": found.stopped,
                "left": found.left,
                "tokens_in": found.tokens_in,
                "tokens_out": found.tokens_out,
                "spent": made.spent,
                "csv": made.table,
                "file": made.dataset_file,
            }
        )
        return
    spent = f"; spent {made.spent:.4g}" if made.spent else ""
    console.line(f"[bold]{len(found.pairs)}[/] pairs; {found.requests} asked, {found.reused} from the journal{spent}")
    for reason, count in rejected.items():
        console.line(f"  [red]✗[/] {reason} × {count}")
    for item in failed:
        console.line(f"  [red]failed[/] {escape(str(item))}")
    if found.stopped in STOPPED:
        console.line(f"  [yellow]·[/] {STOPPED[found.stopped]} {found.left} requests were not made.")
    elif wanted is not None and len(found.pairs) < wanted:
        console.line(f"  [yellow]·[/] {wanted} were wanted; the documents gave no more. Try a higher --per-chunk.")
    if made.table:
        console.line(f"  written: {escape(str(made.table))} and {escape(str(made.dataset_file))}")


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """The first Ctrl+C asks for an orderly end, the second one breaks off."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def first(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, first)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def add_to(app: typer.Typer) -> None:
    app.command()(generate)
