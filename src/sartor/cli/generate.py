"""`sartor generate`: questions and answers from documents."""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sartor.base.errors import ConfigError
from sartor.base.i18n import Text, ntr, tr
from sartor.cli.arguments import DatasetDir, Json
from sartor.qa_generation.pairs import REJECTIONS

if TYPE_CHECKING:
    from sartor.api.generating import GenerationResult
    from sartor.qa_generation.requests_plan import Estimate
    from sartor.qa_generation.settings import GenerationKeywords

STOPPED = {
    "requested": tr("Stopped. Run the same command to continue."),
    "cap": tr(
        "Stopped before a request that could exceed --max-cost or the maximum foretold; the pairs so far are written."
    ),
    "endpoint": tr("Stopped: the endpoint failed several times in a row. Run the same command to continue."),
}
CHANGED_FRAC = 0.25
"""A forecast that differs by more than this from the one shown last is shown."""
DEMONSTRATION = tr("The embedded model only shows how it works; use --endpoint for data to train on.")


# A Typer command's options are its signature.
def generate(
    documents: Annotated[
        list[Path] | None, typer.Argument(metavar="DOC...", help="txt, md, html, pdf, docx, epub.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the dataset. Default: that of the first document.")] = "",
    endpoint: Annotated[str | None, typer.Option(help="OpenAI-compatible address, ending in /v1.")] = None,
    model: Annotated[str, typer.Option(help="The endpoint's model, or a local one.")] = "smollm2-135m",
    key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the API key.")] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Pairs in all, spread over the documents.")] = None,
    per_chunk: Annotated[int | None, typer.Option(min=1, help="Questions on each passage. Default: 2.")] = None,
    multi_turn: Annotated[bool, typer.Option("--multi-turn", help="Make conversations of several turns.")] = False,
    language: Annotated[str | None, typer.Option(help="Language of the prompt, en or zh. Default: detected.")] = None,
    style: Annotated[Path | None, typer.Option(help="File that says how questions should be written.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="Your own prompt file.")] = None,
    show_prompt: Annotated[
        bool, typer.Option("--show-prompt", help="Print the built-in prompt file, for editing.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Maximum number of concurrent requests.")] = 8,
    price_in: Annotated[float, typer.Option(min=0, help="Price of a million input tokens.")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0, help="Price of a million output tokens.")] = 0.0,
    max_cost: Annotated[float | None, typer.Option(help="Stop before spending more than this.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Text encoding. Default: detected.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only estimate what it would need.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Spend money without confirmation.")] = False,
    dataset_dir: DatasetDir = Path("data"),
    json: Json = False,
) -> None:
    """Generate questions and answers from documents, each with a supporting quote; exit 1 if passages failed."""
    if show_prompt:
        small = endpoint is None and model == "smollm2-135m"
        typer.echo(_prompt_text(language or "en", multi_turn, small), nl=False)
        return
    if not documents:
        raise ConfigError(
            "No documents given.", "sartor generate DOC...", "Give txt, md, html, pdf, docx or epub files."
        )
    settings: GenerationKeywords = {
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
        "key_env": key_env,
        "price_in": price_in,
        "price_out": price_out,
        "max_cost": max_cost,
        "workers": workers,
    }
    _run(documents, name or documents[0].stem, settings, _Surface(dry_run, yes, json))


@dataclass(frozen=True, slots=True)
class _Surface:
    """What the options say about this call, not about what is generated."""

    dry_run: bool
    yes: bool
    json: bool


def _prompt_text(language: str, multi_turn: bool, small: bool) -> str:
    from sartor.qa_generation.prompt_files import prompt_file

    return prompt_file(language, multi_turn=multi_turn, small=small).read_text(encoding="utf-8")


def _run(documents: list[Path], name: str, settings: GenerationKeywords, surface: _Surface) -> None:
    """Say what it will need, generate, and report. Raises: typer.Exit when passages failed or nothing was made."""
    from sartor.api.generating import estimate_generation
    from sartor.api.generating import generate as make
    from sartor.cli import console

    expected = estimate_generation(documents, name, **settings)
    if surface.dry_run and surface.json:
        console.print_json(expected.to_json())
        return
    priced = bool(settings["price_in"] or settings["price_out"])
    _print_estimate(expected, settings["endpoint"] is None, priced)
    if surface.dry_run:
        return
    if expected.cost and not surface.yes and sys.stdin.isatty():
        typer.confirm(str(tr("Continue?")), default=True, abort=True, err=True)
    with _stop_on_interrupt() as stop, console.progress_bar(str(tr("generating")), surface.json) as progress:
        on_estimate = None if surface.json else _forecast_printer()
        result = make(documents, name, **settings, stop=stop, on_estimate=on_estimate, progress=progress)
    _report(result, surface.json, settings["pairs"])
    found = result.generated
    if found.failed or not found.pairs or found.stopped in STOPPED:
        raise typer.Exit(1)


def _forecast_printer() -> Callable[[Estimate], None]:
    """Prints the time in all as the answers foretell it: at the first, and when it has changed noticeably."""
    from sartor.cli import console

    told_s = 0.0

    def on_estimate(found: Estimate) -> None:
        nonlocal told_s
        if found.basis == "assumed" or abs(found.seconds - told_s) <= max(CHANGED_FRAC * told_s, 2.0):
            return
        text = (
            tr("by the answers so far: about {time} in all", time=_time(found.seconds))
            if told_s
            else tr("first answer timed: about {time} in all", time=_time(found.seconds))
        )
        told_s = found.seconds
        console.err.print(f"  [dim]{escape(str(text))}[/]")

    return on_estimate


def _print_estimate(expected: Estimate, embedded: bool, priced: bool) -> None:
    """What it will need, on standard error."""
    from sartor.cli import console

    parts = [
        ntr("{count} passage", "{count} passages", count=expected.passages),
        ntr(
            "about {count} request, at most {max} with retries and further rounds ({reused} answers reused)",
            "about {count} requests, at most {max} with retries and further rounds ({reused} answers reused)",
            count=expected.calls,
            max=expected.max_calls,
            reused=expected.reused,
        ),
        tr(
            "tokens: about {tokens_in:,} in and {tokens_out:,} out, at most {max_in:,} and {max_out:,}",
            tokens_in=expected.tokens_in,
            tokens_out=expected.tokens_out,
            max_in=expected.max_tokens_in,
            max_out=expected.max_tokens_out,
        ),
        tr(
            "about {time}, assuming {seconds:g} s per request until answers are timed",
            time=_time(expected.seconds),
            seconds=expected.assumed_call_s,
        ),
    ]
    if priced:
        parts.append(
            tr("money: about {cost:.4g}, at most {max_cost:.4g}", cost=expected.cost, max_cost=expected.max_cost)
        )
    console.err.print(escape("; ".join(map(str, parts))), soft_wrap=True)
    if embedded:
        console.err.print(f"  [yellow]·[/] {DEMONSTRATION}", soft_wrap=True)


def _report(result: GenerationResult, json: bool, wanted: int | None) -> None:
    from sartor.cli import console

    found = result.generated
    rejected = Counter(item.reason for item in found.rejected)
    failed = [
        {"document": p.document, "section": p.section, "start": p.start, "reason": str(why)} for p, why in found.failed
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
                "spent": result.spent,
                "csv": result.table,
                "file": result.dataset_file,
            }
        )
        return
    parts = [
        ntr("{count} pair", "{count} pairs", count=len(found.pairs)),
        ntr("{count} request sent", "{count} requests sent", count=found.requests),
        ntr("{count} answer reused", "{count} answers reused", count=found.reused),
    ]
    if result.spent:
        parts.append(tr("spent {money:.4g}", money=result.spent))
    console.line(escape("; ".join(map(str, parts))))
    for code, count in rejected.items():
        console.line(f"  [red]✗[/] {escape(str(REJECTIONS[code]))} [dim]{code} × {count}[/]")
    for item in failed:
        place = ", ".join(filter(None, (str(item["document"]), str(item["section"]), str(item["start"]))))
        console.line(f"  [red]✗[/] {escape(str(tr('failed: {place}: {reason}', place=place, reason=item['reason'])))}")
    for remark in _remarks(result, wanted):
        console.line(f"  [yellow]·[/] {escape(str(remark))}")
    if result.table:
        written = tr("written: {table} and {file}", table=result.table, file=result.dataset_file)
        console.line(f"  {escape(str(written))}")


def _remarks(result: GenerationResult, wanted: int | None) -> Iterator[Text]:
    found = result.generated
    if found.stopped in STOPPED:
        yield STOPPED[found.stopped]
        yield ntr("{count} request was not sent.", "{count} requests were not sent.", count=found.left)
    elif wanted is not None and len(found.pairs) < wanted:
        yield tr("{wanted} pairs were wanted; the documents yielded no more.", wanted=wanted)
        yield tr("Try a higher --per-chunk.") if found.per_passage_counts else tr("Add documents, or use --endpoint.")


def _time(seconds: float) -> Text:
    if seconds < 90:
        return tr("{seconds:.0f} s", seconds=seconds)
    return tr("{minutes:.0f} min", minutes=seconds / 60)


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl+C ends the run in order, the second one aborts it."""
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
