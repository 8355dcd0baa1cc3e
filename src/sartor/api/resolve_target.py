"""Turns a run, a checkpoint, an adapter or a model into the settings that load it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sartor.base.config import RunConfig, parse_override, read_yaml
from sartor.base.errors import ModelError, RunError
from sartor.base.i18n import tr
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.rundir import RunDir
from sartor.base.uploads import allowing_typed
from sartor.model.known_names import folders_near, require_known
from sartor.model.safety import read_json_object

PATHS = ("dataset_dir", "model_name_or_path", "adapter_name_or_path", "ref_model", "template", "judge_labels")
"""The settings that name files or folders, relative to where the training was started."""


def config_for(
    target: str | Path,
    overrides: Iterable[str] = (),
    permissions: Permissions = NOTHING_ALLOWED,
    *,
    unfinished: bool = False,
) -> RunConfig:
    """The settings of a run's folder with its weights, of an adapter's folder with its base, or of a model.

    `unfinished` takes the newest whole checkpoint of a run that has no final weights.

    Raises: ModelError for a run without weights, a path where nothing is, or an adapter whose base is not on this
    machine; ConfigError for bad overrides.
    """
    path = Path(target)
    settings = dict(parse_override(item) for item in overrides)
    permissions = allowing_typed(permissions, settings)
    run = run_of(path)
    if run and run.path == path and not _has_weights(path):
        path = _checkpoint_of(run, unfinished)
    if run is None and not (path / "adapter_config.json").exists():
        require_known(str(target))
        return RunConfig.from_dict({"model_name_or_path": str(target), **settings}, permissions=permissions)
    given = given_settings(run) if run else {}
    for key in ("output_dir", "export_dir"):  # where the training wrote
        given.pop(key, None)
    if (path / "adapter_config.json").exists():
        given["adapter_name_or_path"] = [str(path)]
        if "model_name_or_path" not in {**given, **settings}:
            given["model_name_or_path"] = _base_of(path)
    elif any(path.glob("model*.safetensors")):
        given["model_name_or_path"] = str(path)
        given.pop("adapter_name_or_path", None)
    else:
        raise ModelError("No weights in this folder.", path, "Choose another checkpoint, or finish the training.")
    return RunConfig.from_dict({**given, **settings}, str(path), permissions)


def run_of(path: Path) -> RunDir | None:
    """The run that a folder is, or whose checkpoint it is."""
    for folder in (path, path.parent):
        if RunDir(folder).exists() and (folder == path or path.name.startswith("checkpoint-")):
            return RunDir(folder)
    return None


def _has_weights(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists() or any(folder.glob("model*.safetensors"))


def _checkpoint_of(run: RunDir, wanted: bool) -> Path:
    """The newest whole checkpoint of an unfinished run. Raises: ModelError when there is none, or none is wanted."""
    from sartor.training.checkpoint import verify

    whole = next((folder for folder in run.checkpoints() if verify(folder) is None), None)
    if wanted and whole:
        return whole
    fix = tr("Finish the training, or use its newest checkpoint: {folder}.", folder=whole)
    raise ModelError(
        "No weights in this folder (state: {state}).",
        run.path,
        fix if whole else tr("Finish the training."),
        state=run.state(),
    )


def existing_run(path: str | Path) -> RunDir:
    """The run in a folder. Raises: RunError naming the runs that there are."""
    run = RunDir(Path(path))
    if not run.exists():
        what = "This folder is not a run." if run.path.is_dir() else "There is no run of this name."
        raise RunError(what, run.path, folders_near(str(path), models=False), code="not-found")
    return run


def settings_of(run: RunDir, permissions: Permissions = NOTHING_ALLOWED) -> RunConfig:
    """The settings that a run was trained with. Raises: ConfigError when its config.yaml is damaged."""
    return RunConfig.from_dict(given_settings(run), str(run.config), permissions)


def given_settings(run: RunDir) -> dict[str, Any]:
    """`recorded_settings` for use here: relative paths start where the training was started."""
    given, folder = recorded_settings(run), started_in(run)
    if folder != Path():
        given.setdefault("dataset_dir", RunConfig().data.dataset_dir)
    return {key: _from(folder, key, value) for key, value in given.items()}


def recorded_settings(run: RunDir) -> dict[str, Any]:
    """A run's settings as given, with the model that its plan names, without those that must agree with a command."""
    given = dict(RunConfig.from_dict(read_yaml(run.config), str(run.config)).given)
    for key in ("do_train", "do_eval", "do_predict"):
        given.pop(key, None)
    plan = run.read_json("plan.json") if run.plan.exists() else {}
    if plan.get("model_name_or_path"):
        given.setdefault("model_name_or_path", plan["model_name_or_path"])
    return given


def started_in(run: RunDir) -> Path:
    """The folder where the training was started; this one where that is the same, or not known."""
    folder = run.read_json("data.json").get("started_in") if run.data.exists() else None
    there = run.path / folder if isinstance(folder, str) else Path()
    return Path() if there.resolve() == Path.cwd() else there


def _from(folder: Path, key: str, value: Any) -> Any:
    """The value of a setting that names a path, seen from this folder; any other as it is."""
    if key not in PATHS or not value or folder == Path():
        return value
    if isinstance(value, list | tuple):
        return [_from(folder, key, part) for part in value]
    there = folder / str(value)
    return str(there.resolve()) if there.exists() else value


def _base_of(adapter: Path) -> str:
    """The base that the adapter names, if it is on this machine: what data names is not fetched."""
    from sartor.model.locate import local_model

    base = read_json_object(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError("The adapter does not name its base model.", adapter, "Add model_name_or_path=MODEL.")
    if local := local_model(base):
        return local
    raise ModelError(
        "The adapter names the base model {name!r}, which is not on this machine.",
        adapter,
        "To fetch it, add model_name_or_path={name}.",
        name=base,
    )
