"""What commands print: ledgers, scores, progress and errors, drawn with rich; it computes nothing."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from sartor.base.errors import SartorError
from sartor.base.i18n import Text
from sartor.base.types import Ledger, Score

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
MAX_SKIPPED = 5
"""How many skipped rows of one kind are shown; the rest is counted and stands in data.json."""


def line(text: str) -> None:
    """One line of rich markup, never broken: paths and commands in it can be copied."""
    out.print(text, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON value for machines, and nothing else on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def print_error(error: SartorError) -> None:
    """Three lines: what, where, what to do."""
    err.print(f"[bold red]Error:[/] {escape(str(error.what))}", soft_wrap=True)
    if error.where:
        err.print(f"  [dim]where[/]  {escape(str(error.where))}", soft_wrap=True)
    if error.fix:
        err.print(f"  [dim]to do[/]  {escape(str(error.fix))}", soft_wrap=True)


def ledger_printer(title: str, quiet: bool = False) -> Callable[[Ledger], None] | None:
    """What commands hand down to hear where every row went; drawn beside the progress, off the results."""
    return None if quiet else lambda ledger: print_ledger(ledger, title, err)


def print_ledger(ledger: Ledger, title: str, to: Console = out) -> None:
    """Where every row went; skipped rows by code with their first places."""
    parts = [f"[bold]{ledger.training:,}[/] to learn"]
    if ledger.held_out:
        parts.append(f"[bold]{ledger.held_out:,}[/] held out")
    if ledger.left_out:
        parts.append(f"[bold]{ledger.left_out:,}[/] left out by request")
    colour = "red" if ledger.skipped else "dim"
    parts.append(f"[{colour}]{len(ledger.skipped):,} skipped[/]")
    repeats = f"; {ledger.repeats:,} repeats" if ledger.repeats else ""
    to.print(f"[bold]{escape(title)}[/]  {ledger.read:,} rows read = {' + '.join(parts)}{repeats}", soft_wrap=True)
    counts = Counter(skipped.code for skipped in ledger.skipped)
    for code, count in counts.most_common():
        rows = [skipped for skipped in ledger.skipped if skipped.code == code]
        to.print(f"  [red]✗[/] {escape(str(rows[0].reason))} [dim]{code} × {count}[/]", soft_wrap=True)
        for skipped in rows[:MAX_SKIPPED]:
            field = f", {skipped.field}" if skipped.field else ""
            to.print(f"      [dim]{escape(str(skipped.origin))}{escape(field)}[/]", soft_wrap=True)
        if count > MAX_SKIPPED:
            to.print(f"      [dim]… and {count - MAX_SKIPPED} more[/]", soft_wrap=True)
        to.print(f"    → {escape(str(rows[0].fix))}", soft_wrap=True)
    for note in ledger.notes:
        to.print(f"  [yellow]·[/] {escape(str(note))}", soft_wrap=True)


def print_scores(scores: Mapping[str, Score], title: str) -> None:
    """Each score with its range, how many pairs, and its signature."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for column in ("score", "value", "of", "rows", "signature"):
        table.add_column(
            column,
            justify="right" if column in ("value", "of", "rows") else "left",
            style="dim" if column in ("of", "signature") else None,
            overflow="fold",
        )
    for name, score in scores.items():
        high = score.range[1]
        top = f"{high:g}" if high != float("inf") else "↓ better" if not score.higher_is_better else "∞"
        table.add_row(
            name,
            f"{score.value:.4g}" if abs(score.value) < 1 else f"{score.value:.2f}",
            top,
            str(score.n),
            score.signature,
        )
    out.print(table)


@contextmanager
def progress_bar(description: str, quiet: bool = False) -> Iterator[Any]:
    """A bar fed by `progress(done, total)`; drawn on standard error, and not at all when quiet."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(description, total=None, note="")

        def progress(done: int, total: int | None, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield progress


def print_estimate(found: Mapping[str, Any], to: Console = out) -> None:
    """What a training will take, and what to think of first."""
    end = datetime.now() + timedelta(seconds=found["seconds"])
    to.print(
        f"[bold]pre-flight[/]  {found['total_steps']:,} steps × {found['step_seconds']:.2g} s (longest "
        f"{found['longest_step_seconds']:.2g} s) = [bold]{timedelta(seconds=round(found['seconds']))}[/], "
        f"until {end:%a %H:%M} · memory [bold]{found['peak_memory_bytes'] / 1e9:.2f}[/] of "
        f"{found['device_memory_bytes'] / 1e9:.1f} GB · disk {found['disk_bytes'] / 1e9:.2f} of "
        f"{found['free_disk_bytes'] / 1e9:.1f} GB",
        soft_wrap=True,
    )
    if found["micro_divisor"] > 1:
        to.print(f"  [yellow]·[/] The longest batch did not fit: micro-batches of 1/{found['micro_divisor']}.")
    for advice in found["advice"]:
        to.print(f"  [yellow]·[/] {escape(str(Text.from_json(advice)))}", soft_wrap=True)


class TrainingProgress:
    """Draws the loop's events: a bar with loss, rate and memory; a line for each evaluation and checkpoint."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.total: int | None = None
        self.bar: Any = None

    def __enter__(self) -> TrainingProgress:
        self._context = progress_bar("training", self.quiet)
        self.bar = self._context.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._context.__exit__(*exc)

    def on_rows(self, rows: Any) -> None:
        if not self.quiet:
            print_ledger(rows.ledger, "data", err)
            if rows.from_cache:
                err.print("  tokens: read from the store, not encoded again")

    def on_event(self, event: Mapping[str, Any]) -> None:
        kind = event["kind"]
        self.total = event.get("total_steps", self.total)
        if kind == "step":
            rate = event["tokens"] / event["seconds"] if event.get("seconds") else 0.0
            note = f"loss {event['loss']:.3f} · {rate:,.0f} tokens/s"
            self.bar(event["step"], self.total, note)
        elif not self.quiet:
            self._line(kind, event)

    def _line(self, kind: str, event: Mapping[str, Any]) -> None:
        if kind == "preflight":
            print_estimate(event, err)
        elif kind == "eval":
            err.print(f"  step {event['step']}: held-out loss [bold]{event['eval_loss']:.4f}[/]")
        elif kind == "warning":
            err.print(
                f"  [yellow]·[/] {escape(str(Text.from_json(event.get('message') or event['text'])))}", soft_wrap=True
            )
        elif kind == "sample":
            err.print(f"  step {event['step']}: {escape(str(event.get('text', '')))}", soft_wrap=True)
        elif kind in ("oom", "skipped_step"):
            err.print(f"  [red]{kind}[/] {escape(json.dumps(dict(event), ensure_ascii=False, default=str))}")
