"""A run is a folder: the names of its files, its events and its state."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sartor.base.errors import RunError
from sartor.base.files import atomic_write, disk_error
from sartor.base.locks import is_locked
from sartor.base.process import ProcessIdentity

State = Literal["new", "running", "interrupted", "failed", "finished"]
REQUIRED_NUMBERS = {"step": ("step", "loss"), "eval": ("step", "eval_loss"), "oom": ("step", "micro_divisor")}
"""Kind of event → the numbers that it has besides its time."""
NUMBERS = (
    *("step", "total_steps", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm", "tokens", "label_tokens"),
    *("padded_tokens", "seconds", "memory_bytes", "device_memory_bytes", "micro_divisor"),
)
"""What is a number, or null, wherever an event has it."""
KINDS_WITH_TEXT = ("skipped_step",)
"""Kinds that write numbers as text: NaN and infinity."""
MAX_LINE_BYTES = 16 << 20
"""A line of a journal holds one answer, at most some hundred kilobytes."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths inside one run's folder; file names are LLaMA-Factory's where it has them."""

    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def source(self) -> Path:
        return self.path / "source.yaml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def data(self) -> Path:
        return self.path / "data.json"

    @property
    def starting(self) -> Path:
        """An empty file, there from the folder's creation until it has the run's plan."""
        return self.path / ".starting"

    @property
    def env(self) -> Path:
        return self.path / "env.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def trainer_log(self) -> Path:
        return self.path / "trainer_log.jsonl"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def verdict(self) -> Path:
        return self.path / "verdict.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def checkpoints(self) -> list[Path]:
        """Checkpoint folders, newest (highest step) first; not verified."""
        found = [p for p in self.path.glob("checkpoint-*") if p.is_dir() and p.name.rpartition("-")[2].isdigit()]
        return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)

    def exists(self) -> bool:
        return self.config.exists()

    def is_planned(self) -> bool:
        """Whether this is a run, and not a folder that happens to hold a config.yaml."""
        return self.exists() and (self.plan.exists() or self.events.exists() or bool(self.checkpoints()))

    def make(self) -> None:
        """Make the folder, if there is none. Raises: RunError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.path) from error

    def write_json(self, name: str, value: Any) -> None:
        """Write one of the folder's JSON files atomically."""
        atomic_write(self.path / name, json.dumps(value, ensure_ascii=False, indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        """Raises: RunError when the file is missing or broken."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            if not self.path.is_dir():
                raise RunError("Run not found.", self.path, "`sartor runs` lists all runs.", code="not-found") from None
            raise RunError("The run has no {file}.", self.path, "Is this a run folder?", file=name) from None
        except ValueError as error:
            raise RunError(
                "{file} is damaged: {reason}.", self.path / name, "Train again with --fresh.", file=name, reason=error
            ) from None

    def event(self, kind: str, **values: Any) -> dict[str, Any]:
        """Append one event to events.jsonl, from which CLI, API and page read progress; return it.

        Raises: RunError on a full disk.
        """
        event = {"time": round(time.time(), 3), "kind": kind, **values}
        append_json_line(self.events, event)
        return event

    def read_events(self, on_damage: Callable[[int], None] | None = None) -> Iterator[dict[str, Any]]:
        """All events so far. Lines that a killed writer left unfinished are skipped; `on_damage` gets the number of
        any other line that is no event."""
        for number, line in enumerate(_lines(self.events), 1):
            if event := parse_event(line):
                yield event
            elif on_damage and not (line.startswith(b"{") and _parsed(line) is None):
                on_damage(number)

    def state(self) -> State:
        """From the last started, finished, failed or interrupted event, and whether that process is still running."""
        last: Mapping[str, Any] | None = None
        for event in self.read_events():
            if event["kind"] in ("started", "finished", "failed", "interrupted"):
                last = event
        if last is None:
            return "new"
        return self.state_after(last)

    def state_after(self, last: Mapping[str, Any]) -> State:
        """The state when this is the last started, finished, failed or interrupted event."""
        if last["kind"] != "started":
            kind: State = last["kind"]
            return kind
        process = ProcessIdentity.from_json(last.get("process"))
        alive = process.is_alive() if process else None
        return "running" if (is_locked(self.path) if alive is None else alive) else "interrupted"


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one line of JSON in a single write, on a new line if a killed writer left the last one incomplete.

    Raises: RunError on a full disk.
    """
    line = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8") + b"\n"
    try:
        with path.open("a+b") as file:
            if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                line = b"\n" + line
            file.write(line)
    except OSError as error:
        raise disk_error(error, path) from error


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete objects of a JSONL file that may still be written to; other lines are skipped."""
    for line in _lines(path):
        value = _parsed(line)
        if isinstance(value, dict):
            yield value


def parse_event(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None where it is none, or a number in it is not one."""
    event = _parsed(line)
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    required = ("time", *REQUIRED_NUMBERS.get(event["kind"], ()))
    if event["kind"] not in KINDS_WITH_TEXT and any(not _is_number(event.get(name, 0)) for name in NUMBERS):
        return None
    valid = all(event.get(name) is not None and _is_number(event[name]) for name in required)
    return event if valid and isinstance(event.get("step", 0), int) else None


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _parsed(line: bytes) -> Any:
    """The JSON value of a line; None where it is not valid JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, none if there is no file; of one that is too long to be ours only a mark."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while line := file.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                line = b"?\n"
            yield line
