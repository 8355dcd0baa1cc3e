"""The report: one self-contained HTML page about a run, made from the run's files alone; it runs no model."""

from __future__ import annotations

import html
from pathlib import Path

from sartor.base.rundir import RunDir
from sartor.base.system import atomic_write
from sartor.use.verdict import Verdict


def write_report(run: RunDir, out: Path | None = None) -> Path:
    """Write `report.html` (or `out`) and return its path. Raises: RunError when a file of the run is damaged."""
    verdict = Verdict.from_json(run.read_json("verdict.json")) if run.verdict.exists() else None
    target = out or run.report
    body = html.escape(verdict.sentence("en")) if verdict else "Not compared yet."
    atomic_write(target, f"<!doctype html><meta charset=utf-8><title>{html.escape(run.name)}</title><p>{body}")
    return target
