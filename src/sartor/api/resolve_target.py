"""Turns a run, a checkpoint, an adapter or a model into the settings that load it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sartor.base.config import RunConfig, parse_override, read_yaml
from sartor.base.errors import ModelError
from sartor.base.i18n import tr
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.rundir import RunDir
from sartor.base.uploads import allowing_typed
from sartor.model.safety import read_json_object


def config_for(
    target: str | Path,
    overrides: Iterable[str] = (),
    permissions: Permissions = NOTHING_ALLOWED,
    *,
    unfinished: bool = False,
) -> RunConfig:
    """The settings of a run's folder with its weights, of an adapter's folder with its base, or of a model.

    `unfinished` takes the newest whole checkpoint of a run that has no final weights.

    Raises: ModelError for a run without weights, or an adapter whose base is not on this machine; ConfigError for bad
    overrides.
    """
    path = Path(target)
    settings = dict(parse_override(item) for item in overrides)
    permissions = allowing_typed(permissions, settings)
    run = run_of(path)
    if run and run.path == path and not _has_weights(path):
        path = _checkpoint_of(run, unfinished)
    if run is None and not (path / "adapter_config.json").exists():
        return RunConfig.from_dict({"model_name_or_path": str(target), **settings}, permissions=permissions)
    given = dict(RunConfig.from_dict(read_yaml(run.config), str(run.config)).given) if run else {}
    for key in ("do_train", "do_eval", "do_predict", "export_dir"):
        given.pop(key, None)
    if (path / "adapter_config.json").exists():
        given["adapter_name_or_path"] = [str(path)]
        if "model_name_or_path" not in {**given, **settings}:
            given["model_name_or_path"] = _base_of(path)
    elif any(path.glob("model*.safetensors")):
        given["model_name_or_path"] = str(path)
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


def _base_of(adapter: Path) -> str:
    """The base that the adapter names, if it is on this machine: what data names is not fetched."""
    from sartor.model.load import local_model

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
