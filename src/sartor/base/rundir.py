"""A run is a folder: the names of its files, its events and its state."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sartor.base.errors import RunError
from sartor.base.files import atomic_write, disk_error
from sartor.base.process import is_process_alive

State = Literal["new", "running", "interrupted", "failed", "finished"]


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

    def read_events(self) -> Iterator[dict[str, Any]]:
        """All events so far, without an unfinished last line."""
        return read_json_lines(self.events)

    def state(self) -> State:
        """From the last started, finished, failed or interrupted event, and whether that process is still running."""
        last: Mapping[str, Any] | None = None
        for event in self.read_events():
            if event["kind"] in ("started", "finished", "failed", "interrupted"):
                last = event
        if last is None:
            return "new"
        if last["kind"] == "started":
            return "running" if is_process_alive(int(last.get("pid", 0))) else "interrupted"
        kind: State = last["kind"]
        return kind


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
    """The complete lines of a JSONL file that may still be written to; incomplete lines are skipped."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value
