"""Opens a run folder (new, resumed, already finished, or refused), and makes the folder of a new run."""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from sartor.base.config import RunConfig, read_yaml, to_yaml
from sartor.base.errors import RunError
from sartor.base.files import atomic_write, made_parents, move_to_trash
from sartor.base.i18n import tr
from sartor.base.locks import file_lock, is_locked, lock_file
from sartor.base.rundir import RunDir, State

Opened = Literal["new", "resume", "finished"]
NOT_COMPARED = frozenset(
    {
        "overwrite_output_dir",
        "resume_from_checkpoint",
        "do_train",
        "do_eval",
        "do_predict",
        "plot_loss",
        "report_to",
        "run_name",
        "output_dir",
        "max_skipped",
    }
)
"""Settings that do not change the training; a run may be resumed with other values of them."""


def run_folder(config: RunConfig) -> RunDir:
    """`output_dir`, else `runs/<datasets>-<model>`."""
    if config.train.output_dir:
        return RunDir(Path(config.train.output_dir))
    model = re.sub(r"[^\w.-]+", "-", Path(config.model.model_name_or_path).name)
    return RunDir(Path("runs") / f"{'+'.join(config.data.dataset) or 'run'}-{model}")


def open_run(run: RunDir, config: RunConfig, *, fresh: bool, allow_changed: bool) -> Opened:
    """Decide whether the run is new, resumed or finished; writes nothing.

    Raises: RunError when another process is training there, the settings differ from the run's, or the folder holds
    something else.
    """
    state = run.state()
    if state == "running":
        raise RunError("This run is in progress.", run.path, "Wait for it to finish, or stop it.")
    if not run.is_planned():
        if not (_is_free(run.path) or run.starting.exists() or (fresh and run.exists())):
            fix = tr("Choose another output_dir, or empty it.")
            raise RunError("The folder is not empty and is not a run.", run.path, fix)
        return "new"
    if is_replaced(state, config, fresh):
        return "new"
    changed = differences(RunConfig.from_dict(read_yaml(run.config), str(run.config)), config)
    if changed and not _has_begun(run):
        return "new"
    if changed and not allow_changed:
        raise _changed_error(run, changed)
    return "finished" if state == "finished" else "resume"


def is_replaced(state: State, config: RunConfig, fresh: bool) -> bool:
    """Whether a run in this state makes way for a new one."""
    return fresh or (state == "finished" and config.train.overwrite_output_dir)


def create_run(run: RunDir, config: RunConfig, source: str | None) -> None:
    """Make the folder of a new run, with its settings; a run that is there already goes to the trash, also one that was
    killed while its folder was made.

    Raises: RunError when it cannot be written.
    """
    if run.exists() or run.starting.exists():
        move_to_trash(run.path)
    run.make()
    run.starting.touch()
    atomic_write(run.config, to_yaml(config.given))
    if source is not None:
        atomic_write(run.source, mask_secrets(source))


@contextlib.contextmanager
def scratch_run(run: RunDir) -> Iterator[RunDir]:
    """An empty folder on the disk that the run will use, removed afterwards, as are those of killed processes."""
    with made_parents(run.path):
        for left in run.path.parent.glob(".trial-*"):
            if left.is_dir() and not is_locked(left):
                shutil.rmtree(left, ignore_errors=True)
                lock_file(left).unlink(missing_ok=True)
        scratch = RunDir(run.path.parent / f".trial-{uuid.uuid4().hex[:8]}")
        with file_lock(scratch.path):
            try:
                scratch.make()
                yield scratch
            finally:
                shutil.rmtree(scratch.path, ignore_errors=True)


def _is_free(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _has_begun(run: RunDir) -> bool:
    return run.state() != "new" or bool(run.checkpoints())


def differences(before: RunConfig, now: RunConfig) -> Mapping[str, tuple[Any, Any]]:
    """Setting → (the run's value, the value now), for settings that change the training."""
    old, new = before.flat(), now.flat()
    return {key: (old[key], new[key]) for key in old if key not in NOT_COMPARED and old[key] != new[key]}


def _changed_error(run: RunDir, changed: Mapping[str, tuple[Any, Any]]) -> RunError:
    listed = "; ".join(f"{key}: {old!r} → {new!r}" for key, (old, new) in changed.items())
    return RunError(
        "The run was started with different settings ({changes}).",
        run.path,
        "Use its settings, another output_dir, or --fresh (which moves the old run to the trash).",
        changes=listed,
    )


def mask_secrets(text: str) -> str:
    """A settings file with the values of secret keys masked."""
    return re.sub(r"(?im)^(\s*\w*(?:api_key|token|password|secret)\s*:\s*)(?!\s*\$\{)\S.*$", r"\1***", text)
