"""Opens a run folder (new, resumed, already finished, or refused) and writes its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sartor.base.config import RunConfig, read_yaml, to_yaml
from sartor.base.errors import RunError
from sartor.base.files import atomic_write, move_to_trash
from sartor.base.rundir import RunDir

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


def open_run(run: RunDir, config: RunConfig, source: str | None, *, fresh: bool, allow_changed: bool) -> Opened:
    """Decide whether the run is new, resumed or finished, and write config.yaml and source.yaml if it is new.

    Raises: RunError when another process is training there, or the settings differ from the run's.
    """
    state = run.state()
    if state == "running":
        raise RunError("This run is in progress.", run.path, "Wait for it to finish, or stop it.")
    if run.exists():
        if not fresh and not (state == "finished" and config.train.overwrite_output_dir):
            changed = differences(RunConfig.from_dict(read_yaml(run.config), str(run.config)), config)
            begun = state != "new" or bool(run.checkpoints())
            if begun and changed and not allow_changed:
                raise _changed_error(run, changed)
            if begun or not changed:
                return "finished" if state == "finished" else "resume"
        else:
            move_to_trash(run.path)
    elif run.path.exists() and any(run.path.iterdir()):
        raise RunError("The folder is not empty and is not a run.", run.path, "Choose another output_dir, or empty it.")
    run.path.mkdir(parents=True, exist_ok=True)
    atomic_write(run.config, to_yaml(config.given))
    if source is not None:
        atomic_write(run.source, mask_secrets(source))
    return "new"


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
