"""`runs` and `rerun`: list run folders, repeat one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.api.resolve_target import existing_run, recorded_settings, settings_of, started_in
from sartor.api.training import Run, train
from sartor.base.config import RunConfig
from sartor.base.errors import RunError, SartorError
from sartor.base.files import sha256_file, system_errors
from sartor.base.i18n import Text, tr
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.rundir import RunDir

if TYPE_CHECKING:
    from sartor.training.job import Callback


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in a list of runs; None is not known yet."""

    name: str
    path: str
    state: str
    model: str
    data: str
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    eval_loss: float | None = None
    verdict: str | None = None
    started: float | None = None
    problem: Text | None = None
    """What is damaged, and in which file."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(replace(self, problem=None)), "problem": self.problem and self.problem.to_json()}


@system_errors()
def runs(folder: str | Path = "runs") -> list[RunSummary]:
    """Every run below a folder, newest first; damaged ones have the state `damaged`.

    Example:
        >>> [(run.name, run.state) for run in sartor.runs() if run.name == "first"]
        [('first', 'finished')]
    """
    found = [RunDir(config.parent) for config in Path(folder).glob("**/config.yaml") if ".trash" not in config.parts]
    known = (summary(run) for run in found if run.is_planned())
    return sorted(known, key=lambda s: s.started or 0.0, reverse=True)


def summary(run: RunDir) -> RunSummary:
    """The summary of a run, from its config, events and verdict."""
    model = data = "–"
    facts: dict[str, Any] = {}
    damaged: list[int] = []
    try:
        config = RunConfig.from_dict(recorded_settings(run), str(run.config))
        model, data = config.model.model_name_or_path, ",".join(config.data.dataset)
        facts = _facts(run, damaged.append)
        state: str = run.state()
    except SartorError as error:
        state, facts["problem"] = "damaged", tr("{where}: {what}", where=error.where, what=error.what)
    except OSError as error:
        state, facts["problem"] = "damaged", tr("{where}: {what}", where=error.filename, what=error.strerror)
    if damaged:
        state = "damaged"
        facts["problem"] = tr("{file}, line {line}: not an event of Sartor", file=run.events, line=damaged[0])
    return RunSummary(run.name, str(run.path), state, model, data, **facts)


def _facts(run: RunDir, on_damage: Callable[[int], None]) -> dict[str, Any]:
    """What the events and the verdict tell. Raises: RunError, OSError."""
    facts: dict[str, Any] = {}
    for event in run.read_events(on_damage):
        if event["kind"] == "started":
            facts.setdefault("started", event["time"])
            facts["total_steps"] = event.get("total_steps")
        elif event["kind"] == "step":
            facts |= {"step": event["step"], "loss": event["loss"]}
        elif event["kind"] == "eval":
            facts["eval_loss"] = event["eval_loss"]
    if run.verdict.exists():
        verdict = run.read_json("verdict.json")
        outcome = verdict.get("outcome") if isinstance(verdict, dict) else None
        if not isinstance(outcome, str):
            raise RunError("The verdict has no outcome.", run.verdict, tr("Run `sartor compare` again."))
        facts["verdict"] = outcome
    return facts


@system_errors()
def rerun(
    run: str | Path,
    *,
    output_dir: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    permissions: Permissions = NOTHING_ALLOWED,
) -> Run:
    """Repeat a run from its folder, into another folder.

    Raises: RunError when one of its data files is missing or has changed.

    Example:
        >>> again = sartor.rerun("runs/first")
        >>> again.path.name
        'first-rerun'
    """
    before = existing_run(run)
    config = settings_of(before)
    for file in before.read_json("data.json")["datasets"]:
        path = started_in(before) / file["path"]
        if not path.exists() or sha256_file(path) != file["sha256"]:
            what = (
                tr("A data file of the run has changed.") if path.exists() else tr("A data file of the run is missing.")
            )
            raise RunError(what, path, "Restore the file with SHA-256 {sha256}.", sha256=file["sha256"])
    target = Path(output_dir) if output_dir else before.path.with_name(before.name + "-rerun")
    return train(config.replace(output_dir=str(target)), callbacks=callbacks, plan_of=before, permissions=permissions)
