"""Follows the events of running trainings: new lines are read once for all browser windows and kept as curves."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sartor.base.rundir import RunDir, State, parse_event
from sartor.web.chart_options import MAX_POINTS, smooth, thin, weight_for

CURVES = ("loss", "learning_rate", "grad_norm", "speed", "memory_bytes")
LINES = 400
RECENT_STEPS = 30
MAX_MONITORS = 32


@dataclass(slots=True)
class RunMonitor:
    """Everything known about a run so far. `version` increases with every change."""

    run: RunDir
    offset: int = 0
    version: int = 0
    steps: list[int] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CURVES})
    evals: list[tuple[int, float, float, float]] = field(default_factory=list)
    """(step, epoch, time, loss) on held-out rows."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """The last events other than steps."""
    total_steps: int | None = None
    device: str = "cpu"
    memory_total: int | None = None
    """Bytes of the device's memory, or the machine's for a CPU; None until the run reports it."""
    last: Mapping[str, Any] | None = None
    """The last started, finished, failed or interrupted event."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    drawn: dict[Hashable, tuple[int, list[list[float]]]] = field(default_factory=dict)
    """Downsampled curves with their version, shared by all windows."""

    def line(
        self, name: str, axis: str = "step", smoothing: int = 0, max_points: int = MAX_POINTS
    ) -> list[list[float]]:
        """[x, y] points of a curve, smoothed, then downsampled with the extremes kept."""
        key, version = (name, axis, smoothing, max_points), self.version
        made = self.drawn.get(key)
        if made is None or made[0] != version:
            y = self.curves[name]
            made = version, thin(self.axis(axis), smooth(y, weight_for(smoothing, len(y))), max_points)
            self.drawn[key] = made
        return made[1]

    def refresh(self) -> int:
        """Read what was written since the last call; all of it if the file was replaced. Returns the version."""
        with self.lock:
            try:
                size = self.run.events.stat().st_size
            except OSError:
                size = 0
            if size < self.offset:
                self._forget()
            if size > self.offset:
                with self.run.events.open("rb") as file:
                    file.seek(self.offset)
                    content = file.read(size - self.offset)
                end = content.rfind(b"\n") + 1
                self.offset += end
                for line in content[:end].splitlines():
                    self._take(line)
                self.version += bool(end)
            return self.version

    def state(self) -> State:
        """As `RunDir.state`, without reading all events again."""
        if self.last is None:
            return "new"
        return self.run.state_after(self.last)

    def seconds_left(self) -> float | None:
        """Estimated from the mean duration of the last steps."""
        if not self.total_steps or len(self.steps) < 2 or self.steps[-1] >= self.total_steps:
            return None
        times = self.times[-RECENT_STEPS:]
        return (times[-1] - times[0]) / max(1, len(times) - 1) * (self.total_steps - self.steps[-1])

    def axis(self, name: str) -> list[float]:
        """step, epoch, or minutes since the first step."""
        if name == "epoch":
            return self.epochs
        if name == "time":
            return [(moment - self.times[0]) / 60 for moment in self.times]
        return [float(step) for step in self.steps]

    def held_out(self, name: str) -> list[tuple[float, float]]:
        """The evaluation curve over the same axis."""
        start = self.times[0] if self.times else 0.0
        at = {"epoch": 1, "time": 2}.get(name, 0)
        return [((row[at] - start) / 60 if name == "time" else row[at], row[3]) for row in self.evals]

    def _forget(self) -> None:
        self.offset, self.last, self.total_steps = 0, None, None
        self.evals.clear()
        self.lines.clear()
        self._cut(-1)

    def _cut(self, step: int) -> None:
        """Drop the steps after `step`: a resumed run repeats them."""
        kept = next((i for i, number in enumerate(self.steps) if number > step), len(self.steps))
        del self.steps[kept:]
        for values in (self.epochs, self.times, *self.curves.values()):
            del values[kept:]
        self.evals = [row for row in self.evals if row[0] <= step]

    def _take(self, line: bytes) -> None:
        if (event := parse_event(line)) is None:
            return
        kind = event["kind"]
        if kind == "step":
            self.steps.append(int(event["step"]))
            self.epochs.append(float(event.get("epoch") or 0.0))
            self.times.append(float(event["time"]))
            seconds = event.get("seconds") or 0.0
            event["speed"] = event.get("tokens", 0) / seconds if seconds else 0.0
            for name in CURVES:
                value = event.get(name)
                self.curves[name].append(float("nan") if value is None else float(value))
            return
        if kind == "eval":
            self.evals.append((event["step"], event.get("epoch", 0.0), event["time"], event["eval_loss"]))
        elif kind == "resumed":
            self._cut(int(event.get("step") or 0))
        elif kind in ("started", "finished", "failed", "interrupted"):
            self.last = event
            self.total_steps = event.get("total_steps", self.total_steps)
            self.device = event.get("device", self.device)
            self.memory_total = event.get("device_memory_bytes", self.memory_total)
            if kind == "started" and not event.get("step"):
                self._cut(-1)
        self.lines.append(event)
        del self.lines[:-LINES]


class RunMonitors:
    """One monitor per run folder, shared by all windows."""

    def __init__(self) -> None:
        self.kept: OrderedDict[Path, RunMonitor] = OrderedDict()

    def of(self, run: RunDir) -> RunMonitor:
        key = run.path.resolve()
        if key not in self.kept:
            self.kept[key] = RunMonitor(run)
            while len(self.kept) > MAX_MONITORS:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]


def clock(moment: float | None) -> str:
    """The time of day, with the date if it is not today."""
    if moment is None:
        return "–"
    local = time.localtime(moment)
    today = time.localtime()[:3] == local[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", local)


def duration(seconds: float | None) -> str:
    """`1 h 05 min`, `12 min`, `40 s`."""
    if seconds is None:
        return "–"
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"
