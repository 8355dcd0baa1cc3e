"""Opening a run's folder: new, resumed, finished already, or refused; and writing down what was asked."""

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
"""Settings that do not change what is learned; a run may be gone on with another value of them."""


def run_folder(config: RunConfig) -> RunDir:
    """`output_dir`, else `runs/<datasets>-<model>`."""
    if config.train.output_dir:
        return RunDir(Path(config.train.output_dir))
    model = re.sub(r"[^\w.-]+", "-", Path(config.model.model_name_or_path).name)
    return RunDir(Path("runs") / f"{'+'.join(config.data.dataset) or 'run'}-{model}")


def open_run(run: RunDir, config: RunConfig, source: str | None, *, fresh: bool, allow_changed: bool) -> Opened:
    """Decide what the folder is to this command, and write config.yaml and source.yaml when it is new.

    Raises: RunError when another process trains there, or the settings differ from the run's own (naming each).
    """
    state = run.state()
    if state == "running":
        raise RunError("This run is being trained right now.", str(run.path), "Wait for it, or stop it first.")
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
        raise RunError(
            "The folder holds other things than a run.", str(run.path), "Choose another output_dir, or empty it."
        )
    run.path.mkdir(parents=True, exist_ok=True)
    atomic_write(run.config, to_yaml(config.given))
    if source is not None:
        atomic_write(run.source, mask_secrets(source))
    return "new"


def differences(before: RunConfig, now: RunConfig) -> Mapping[str, tuple[Any, Any]]:
    """Setting → (value of the run, value asked now), for those that change what is learned."""
    old, new = before.flat(), now.flat()
    return {key: (old[key], new[key]) for key in old if key not in NOT_COMPARED and old[key] != new[key]}


def _changed_error(run: RunDir, changed: Mapping[str, tuple[Any, Any]]) -> RunError:
    listed = "; ".join(f"{key}: {old!r} → {new!r}" for key, (old, new) in changed.items())
    return RunError(
        f"The run was started with other settings ({listed}).",
        str(run.path),
        "Use its settings, another output_dir, or --fresh (the old run goes to the trash beside it).",
    )


def mask_secrets(text: str) -> str:
    """The user's file with the values of secret keys hidden."""
    return re.sub(r"(?im)^(\s*\w*(?:api_key|token|password|secret)\s*:\s*)(?!\s*\$\{)\S.*$", r"\1***", text)
