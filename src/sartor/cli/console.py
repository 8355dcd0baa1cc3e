"""What commands print: ledgers, scores, progress, estimates and errors, formatted with rich."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from sartor.base.config import RunConfig
from sartor.base.errors import SartorError
from sartor.base.i18n import Text, ntr, tr
from sartor.base.types import Ledger, Score

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
MAX_SKIPPED = 5
"""How many skipped rows of one kind are shown; the rest is counted (data.json has all)."""


def line(text: str) -> None:
    """One line of rich markup, never wrapped: paths and commands in it can be copied."""
    out.print(text, soft_wrap=True)


def plain(text: Text) -> str:
    """A message in the reader's language, its brackets escaped for rich."""
    return escape(str(text))


def bold(value: object) -> str:
    """A param of a message, in bold."""
    return f"[bold]{escape(str(value))}[/]"


def print_json(value: Any) -> None:
    """One JSON value for machines, and nothing else on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def print_error(error: SartorError) -> None:
    """Three lines: what happened, where, how to fix it."""
    err.print(f"[bold red]{plain(tr('Error:'))}[/] {plain(error.what)}", soft_wrap=True)
    if error.where:
        err.print(f"  [dim]{plain(tr('where'))}[/]  {plain(error.where)}", soft_wrap=True)
    if error.fix:
        err.print(f"  [dim]{plain(tr('fix'))}[/]  {plain(error.fix)}", soft_wrap=True)


def print_defaults(defaults: Mapping[str, Any]) -> None:
    """One line with the settings that nobody gave and that are a first training's."""
    if defaults:
        note = tr(
            "Sartor's defaults for a first training: {settings} (a settings file keeps LLaMA-Factory's).",
            settings=settings_line(defaults),
        )
        err.print(f"  [dim]·[/] {plain(note)}", soft_wrap=True)


def settings_line(settings: Mapping[str, Any]) -> str:
    """Settings as they are typed."""
    return " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in settings.items()
    )


def print_without_effect(config: RunConfig, why: str = "docs/reference/settings.md") -> None:
    """One line with the given settings that do nothing here, and the file that says why."""
    if keys := sorted(config.ignored_keys):
        note = tr("No effect here: {keys} ({file} says why).", keys=", ".join(keys), file=why)
        err.print(f"  [yellow]·[/] {plain(note)}", soft_wrap=True)


def ledger_printer(title: str | Text, quiet: bool = False) -> Callable[[Ledger], None] | None:
    """The `on_ledger` callback of a command: prints to standard error, None when quiet."""
    return None if quiet else lambda ledger: print_ledger(ledger, title, err)


def print_ledger(ledger: Ledger, title: str | Text, to: Console = out) -> None:
    """Where every row went; skipped rows by code, with the places of the first few."""
    parts = [str(tr("{count} training", count=bold(f"{ledger.training:,}")))]
    if ledger.held_out:
        parts.append(str(tr("{count} held out", count=bold(f"{ledger.held_out:,}"))))
    if ledger.left_out:
        parts.append(str(tr("{count} excluded by settings", count=bold(f"{ledger.left_out:,}"))))
    color = "red" if ledger.skipped else "dim"
    parts.append(f"[{color}]{tr('{count} skipped', count=f'{len(ledger.skipped):,}')}[/]")
    rows = ntr("{number} row read", "{number} rows read", count=ledger.read, number=f"{ledger.read:,}")
    repeats = tr("; {count} repeats", count=f"{ledger.repeats:,}") if ledger.repeats else ""
    to.print(f"{bold(title)}  {rows} = {' + '.join(parts)}{repeats}", soft_wrap=True)
    counts = Counter(skipped.code for skipped in ledger.skipped)
    for code, count in counts.most_common():
        same = [skipped for skipped in ledger.skipped if skipped.code == code]
        to.print(f"  [red]✗[/] {plain(same[0].reason)} [dim]{code} × {count}[/]", soft_wrap=True)
        for skipped in same[:MAX_SKIPPED]:
            field = f", {skipped.field}" if skipped.field else ""
            to.print(f"      [dim]{escape(str(skipped.origin))}{escape(field)}[/]", soft_wrap=True)
        if count > MAX_SKIPPED:
            to.print(f"      [dim]… {plain(tr('and {count} more', count=count - MAX_SKIPPED))}[/]", soft_wrap=True)
        to.print(f"    → {plain(same[0].fix)}", soft_wrap=True)
    for note in ledger.notes:
        to.print(f"  [yellow]·[/] {escape(str(note))}", soft_wrap=True)


def print_scores(scores: Mapping[str, Score], title: str | Text) -> None:
    """Each score with its range, the number of pairs, and its signature."""
    table = Table(title=escape(str(title)), title_justify="left", box=None, pad_edge=False, title_style="bold")
    table.add_column(str(tr("score")), overflow="fold")
    table.add_column(str(tr("value")), justify="right", overflow="fold")
    table.add_column(str(tr("of")), justify="right", style="dim", overflow="fold")
    table.add_column(str(tr("rows")), justify="right", overflow="fold")
    table.add_column(str(tr("signature")), style="dim", overflow="fold")
    for name, score in scores.items():
        high = score.range[1]
        top = f"{high:g}" if high != float("inf") else "∞" if score.higher_is_better else f"↓ {tr('better')}"
        value = f"{score.value:.4g}" if abs(score.value) < 1 else f"{score.value:.2f}"
        table.add_row(name, value, top, str(score.n), score.signature)
    out.print(table)
    for name, score in scores.items():
        if score.failed:
            rows = ", ".join(map(str, score.failed[:5])) + (" …" if len(score.failed) > 5 else "")
            warning = tr("{metric} gave no finite number for rows {rows}; they are left out.", metric=name, rows=rows)
            line(f"  [bold yellow]{plain(warning)}[/]")


@contextmanager
def progress_bar(description: str | Text, quiet: bool = False) -> Iterator[Any]:
    """A bar updated by `progress(done, total)`, on standard error; none when quiet."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[times]}"),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(str(description), total=None, note="", times="")
        yield BarProgress(lambda **shown: bar.update(task, **shown), Clock())


class BarProgress:
    """A bar's callback `progress(done, total)`; the time left is the one told just before, else the clock's."""

    def __init__(self, update: Callable[..., None], clock: Clock) -> None:
        self._update, self._clock = update, clock
        self._told: tuple[float | None] | None = None

    def time_left(self, seconds: float | None) -> None:
        self._told = (seconds,)

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        times = self._clock.times(done, total) if self._told is None else self._clock.with_left(*self._told)
        self._told = None
        self._update(completed=done, total=total, note=note, times=str(times))


class Clock:
    """The time that has passed and the time that is left, from what was done since the first call.

    A resumed training begins in the middle, and its first step counts for nothing that came before.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now, self.started = now, now()
        self.first: tuple[float, int] | None = None

    def times(self, done: int, total: int | None) -> Text:
        moment = self.now()
        self.first = self.first or (moment, done)
        since, before = self.first
        if not total or done <= before:
            return self.with_left(None)
        return self.with_left((moment - since) / (done - before) * max(total - done, 0))

    def with_left(self, seconds: float | None) -> Text:
        """The time that has passed, and that so many seconds are left."""
        elapsed = timedelta(seconds=round(self.now() - self.started))
        if seconds is None:
            return tr("{elapsed} elapsed", elapsed=elapsed)
        return tr("{elapsed} elapsed, {left} left", elapsed=elapsed, left=timedelta(seconds=round(seconds)))


def print_estimate(found: Mapping[str, Any], to: Console = out) -> None:
    """The steps, time, memory and disk that a training run will take, and the advice of the pre-flight."""
    end = datetime.now() + timedelta(seconds=found["seconds"])
    parts = (
        tr(
            "{steps} steps × {seconds} s (longest {longest} s) = {duration}, until {end}",
            steps=f"{found['total_steps']:,}",
            seconds=f"{found['step_seconds']:.2g}",
            longest=f"{found['longest_step_seconds']:.2g}",
            duration=bold(timedelta(seconds=round(found["seconds"]))),
            end=f"{end:%m-%d %H:%M}",
        ),
        tr(
            "memory {used} of {total} GB",
            used=bold(f"{found['peak_memory_bytes'] / 1e9:.2f}"),
            total=f"{found['device_memory_bytes'] / 1e9:.1f}",
        ),
        tr(
            "disk {used} of {total} GB",
            used=f"{found['disk_bytes'] / 1e9:.2f}",
            total=f"{found['free_disk_bytes'] / 1e9:.1f}",
        ),
    )
    to.print(f"{bold(tr('pre-flight'))}  {' · '.join(map(str, parts))}", soft_wrap=True)
    if found["micro_divisor"] > 1:
        note = tr("The longest batch did not fit; micro-batches are 1/{divisor} of it.", divisor=found["micro_divisor"])
        to.print(f"  [yellow]·[/] {plain(note)}", soft_wrap=True)
    for advice in found["advice"]:
        to.print(f"  [yellow]·[/] {plain(Text.from_json(advice))}", soft_wrap=True)


class TrainingProgress:
    """Shows the training loop's events: a bar with loss and speed, a line for each evaluation and warning."""

    def __init__(self, quiet: bool = False, defaults: Mapping[str, Any] | None = None) -> None:
        self.quiet, self.defaults = quiet, defaults or {}
        self.total: int | None = None
        self.bar: Any = None

    def __enter__(self) -> TrainingProgress:
        self._context = progress_bar(tr("training"), self.quiet)
        self.bar = self._context.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._context.__exit__(*exc)

    def on_rows(self, rows: Any) -> None:
        if not self.quiet:
            print_ledger(rows.ledger, tr("data"), err)
            print_defaults(self.defaults)
            if rows.from_cache:
                err.print(f"  {plain(tr('tokens: read from the cache, not encoded again'))}")

    def on_event(self, event: Mapping[str, Any]) -> None:
        kind = event["kind"]
        self.total = event.get("total_steps", self.total)
        if kind == "step":
            rate = event["tokens"] / event["seconds"] if event.get("seconds") else 0.0
            note = tr("loss {loss} · {speed} tokens/s", loss=f"{event['loss']:.3f}", speed=f"{rate:,.0f}")
            self.bar(event["step"], self.total, str(note))
        elif not self.quiet:
            self._line(kind, event)

    def _line(self, kind: str, event: Mapping[str, Any]) -> None:
        if kind == "preflight":
            print_estimate(event, err)
        elif kind == "resumed":
            message = tr("resuming after step {step} ({checkpoint})", step=event["step"], checkpoint=event["path"])
            err.print(f"  {plain(message)}", soft_wrap=True)
        elif kind == "eval":
            loss = bold(f"{event['eval_loss']:.4f}")
            err.print(f"  {tr('step {step}: held-out loss {loss}', step=event['step'], loss=loss)}", soft_wrap=True)
        elif kind == "warning":
            err.print(f"  [yellow]·[/] {plain(Text.from_json(event.get('message') or event['text']))}", soft_wrap=True)
        elif kind == "sample":
            err.print(
                f"  {plain(tr('step {step}', step=event['step']))}: {escape(str(event.get('text', '')))}",
                soft_wrap=True,
            )
        elif kind in ("oom", "skipped_step"):
            what = tr("out of memory") if kind == "oom" else tr("step skipped")
            err.print(f"  [red]{plain(what)}[/] {escape(json.dumps(dict(event), ensure_ascii=False, default=str))}")
