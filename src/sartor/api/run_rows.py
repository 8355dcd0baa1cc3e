"""The rows of a run as they were when it was trained: its own settings, split and skips, held against data.json."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sartor.api.prepare_data import PreparedRows, Progress, make_encoder, prepare_rows
from sartor.api.resolve_target import settings_of
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, DataError, RunError
from sartor.base.i18n import tr
from sartor.base.rundir import RunDir
from sartor.base.settings import SECTIONS
from sartor.data.dataset_info import read_registry

MAY_DIFFER = frozenset({"dataset_dir", "max_skipped"})
"""Where the files are now, and a limit that the run has passed: neither decides which rows there are."""


def rows_of(run: RunDir, config: RunConfig, progress: Progress | None = None) -> PreparedRows:
    """The run's training and held-out rows. `config` says where the data is now, and what is allowed.

    Raises: DataError when the data has changed; RunError for a run without data.json.
    """
    recorded = run.read_json("data.json")
    settings = settings_of(run, config.permissions).replace(
        **{key: getattr(config.data, key) for key in MAY_DIFFER if key in config.given}
    )
    rows = prepare_rows(settings, make_encoder(settings), progress)
    wanted = recorded["split"]
    known = frozenset(wanted["train"])
    rows = _without(rows, known)
    same = [example.origin.id for example in rows.held_out] == wanted["held_out"]
    if not settings.data.streaming:
        same = same and [example.origin.id for example in rows.train] == wanted["train"]
    changed = _changed_files(recorded["datasets"], rows)
    if same and not changed:  # an edited text keeps its row's id
        return rows
    raise DataError(
        "The data differs from what the run was trained on.",
        changed or run.data,
        "Restore the files: data.json in the run's folder has their SHA-256.",
    )


def _without(rows: PreparedRows, known: frozenset[str]) -> PreparedRows:
    """The rows without held-out ones that are trained on as well: an eval_dataset may overlap."""
    if not any(example.origin.id in known for example in rows.held_out):
        return rows
    held_out = [example for example in rows.held_out if example.origin.id not in known]
    held_out_ids = [row for row in rows.held_out_ids if row.origin is None or row.origin.id not in known]
    return replace(rows, held_out=held_out, held_out_ids=held_out_ids)


def refuse_other_rows(run: RunDir, config: RunConfig, *sections: str, allowed: frozenset[str] = frozenset()) -> None:
    """Raises: ConfigError for a given setting of these sections that is not the run's: its rows were decided then."""
    before, now = settings_of(run).flat(), config.flat()
    for section in sections:
        for key in SECTIONS[section].model_fields:
            if key in config.given and key not in MAY_DIFFER | allowed and before[key] != now[key]:
                raise ConfigError(
                    "{setting} was decided when the run was trained: it is {value!r} there.",
                    run.path,
                    "Remove {setting}. For other rows: sartor compare base {run} eval_dataset=NAME",
                    setting=key,
                    value=list(before[key]) if isinstance(before[key], tuple) else before[key],
                    run=run.path,
                )


def no_held_out_rows(run: RunDir, *command: str) -> RunError:
    """The error for a run without held-out rows; `command` is to be followed by `eval_dataset=NAME`."""
    settings = settings_of(run)
    train = f"sartor train {run.config} val_size=0.1 output_dir={run.path}-val"
    try:
        registered = read_registry(Path(settings.data.dataset_dir)).entries
    except DataError:
        registered = {}
    others = [name for name in registered if name not in settings.data.dataset]
    fix = tr("Train again with rows held out: {train}", train=train)
    if others:
        other = " ".join((*command, f"eval_dataset={others[0]}"))
        fix = tr("Name other rows ({other}), or train again with rows held out: {train}", other=other, train=train)
    return RunError("The run has no held-out rows.", run.path, fix, code="no-held-out")


def _changed_files(recorded: list[dict[str, str]], rows: PreparedRows) -> str:
    """The names of the files whose bytes are not those that were trained on."""
    hashes = {file["sha256"] for file in recorded}
    return ", ".join(file.path.name for file in rows.files if file.sha256 not in hashes)
