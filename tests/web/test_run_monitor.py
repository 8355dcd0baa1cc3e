"""A run's events are read once and only as they grow; curves are thinned with their extremes kept."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path

from sartor.base.process import ProcessIdentity
from sartor.base.rundir import RunDir
from sartor.web.chart_options import MAX_POINTS, Curve, chart, smooth, thin
from sartor.web.pages.run import needs_redraw
from sartor.web.run_monitor import RunMonitor, RunMonitors, duration


def a_run(folder: Path) -> RunDir:
    folder.mkdir()
    run = RunDir(folder)
    run.event("started", process=ProcessIdentity.of().to_json(), total_steps=10, step=0)
    return run


def step(run: RunDir, number: int, loss: float = 1.0) -> None:
    run.event(
        "step",
        step=number,
        epoch=number / 5,
        loss=loss,
        learning_rate=1e-4,
        grad_norm=1.0,
        tokens=100,
        seconds=0.5,
        memory_bytes=2**30,
    )


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r")
    monitor = RunMonitors().of(run)
    step(run, 1, 3.0)
    first = monitor.refresh()
    assert (monitor.steps, monitor.curves["loss"], monitor.curves["speed"]) == ([1], [3.0], [200.0])
    assert monitor.refresh() == first, "nothing new, nothing drawn"
    with run.events.open("ab") as file:
        file.write(b'{"time": 1, "kind": "step", "step": 2, "lo')
    assert monitor.refresh() == first, "half a line is left for the next time"
    with run.events.open("ab") as file:
        file.write(b'ss": 2.0}\n')
    assert monitor.refresh() > first
    assert monitor.curves["loss"] == [3.0, 2.0]
    assert math.isnan(monitor.curves["grad_norm"][1])
    assert monitor.state() == "running"


def test_steps_after_the_checkpoint_are_made_again(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r")
    for number in range(1, 7):
        step(run, number, float(number))
    run.event("eval", step=6, epoch=1.2, eval_loss=9.0)
    run.event("interrupted", signal=15, step=6)
    monitor = RunMonitor(run)
    monitor.refresh()
    assert monitor.state() == "interrupted"
    run.event("started", pid=os.getpid(), total_steps=10, step=4)
    run.event("resumed", step=4, path="checkpoint-4")
    step(run, 5, 55.0)
    monitor.refresh()
    assert monitor.steps == [1, 2, 3, 4, 5]
    assert monitor.curves["loss"][-1] == 55.0
    assert monitor.evals == []


def test_another_run_in_the_same_folder_is_read_from_its_beginning(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r")
    for number in range(1, 5):
        step(run, number)
    monitor = RunMonitor(run)
    monitor.refresh()
    run.events.unlink()
    run.event("started", pid=os.getpid(), total_steps=3, step=0)
    monitor.refresh()
    assert (monitor.steps, monitor.total_steps) == ([], 3)


def test_thinning_keeps_the_extremes_and_the_ends() -> None:
    rng = random.Random(0)
    y = [rng.gauss(0, 1) for _ in range(100_000)]
    y[54_321], y[77_777], y[123] = 99.0, -99.0, math.nan
    x = list(range(100_000))
    points = thin(x, y)
    assert len(points) <= MAX_POINTS
    assert [54_321.0, 99.0] in points
    assert [77_777.0, -99.0] in points
    assert points[0] == [0.0, y[0]]
    assert points[-1] == [99_999.0, y[-1]]
    assert [p[0] for p in points] == sorted(p[0] for p in points)
    assert all(math.isfinite(value) for _, value in points)
    assert thin([1, 2], [3.0, 4.0]) == [[1.0, 3.0], [2.0, 4.0]]
    assert thin([], []) == []


def test_smoothing_has_no_bias_at_the_beginning() -> None:
    assert smooth([2.0, 2.0, 2.0], 0.9) == [2.0, 2.0, 2.0]
    assert smooth([1.0, 3.0], 0.5) == [1.0, (0.5 * 0.5 * 1 + 0.5 * 3) / 0.75]
    assert smooth([1.0, 3.0], 0.0) == [1.0, 3.0]


def test_a_chart_names_its_lines_as_text() -> None:
    options = chart([Curve("<img src=x onerror=alert(1)>", [[1.0, 2.0]])])
    assert options["tooltip"]["renderMode"] == "richText", "an HTML tooltip would run names of runs"
    assert options["series"][0]["data"] == [[1.0, 2.0]]


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(s) for s in (None, 40, 720, 3900)] == ["–", "40 s", "12 min", "1 h 05 min"]


def test_a_line_is_made_once_for_all_windows_until_there_is_more(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    for number in range(1, 501):
        step(run, number, 9.0 if number == 321 else 1.0)
    monitor = RunMonitor(run)
    monitor.refresh()
    line = monitor.line("loss", max_points=100)
    assert [321.0, 9.0] in line
    assert len(line) <= 100
    assert monitor.line("loss", max_points=100) is line
    assert monitor.line("loss", smoothing=2, max_points=100) != line
    step(run, 501)
    monitor.refresh()
    assert monitor.line("loss", max_points=100)[-1] == [501.0, 1.0]


def test_a_chart_is_drawn_anew_when_a_pixel_could_change() -> None:
    assert needs_redraw(-1, 0)
    assert needs_redraw(0, 1)
    assert needs_redraw(60, 61)
    assert not needs_redraw(60, 60)
    assert not needs_redraw(100_000, 100_100)
    assert needs_redraw(100_000, 100_300)
