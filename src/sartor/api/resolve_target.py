"""Turns a run, a checkpoint, an adapter or a model into the settings that load it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sartor.base.config import RunConfig, parse_override, read_yaml
from sartor.base.errors import ModelError
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.rundir import RunDir
from sartor.base.uploads import allowing_typed


def config_for(
    target: str | Path, overrides: Iterable[str] = (), permissions: Permissions = NOTHING_ALLOWED
) -> RunConfig:
    """The settings of a run's folder with its weights, of an adapter's folder with its base, or of a model.

    Raises: ModelError for a run without weights; ConfigError for bad overrides.
    """
    path = Path(target)
    settings = dict(parse_override(item) for item in overrides)
    permissions = allowing_typed(permissions, settings)
    run = run_of(path)
    if run is None and not (path / "adapter_config.json").exists():
        return RunConfig.from_dict({"model_name_or_path": str(target), **settings}, permissions=permissions)
    given = dict(RunConfig.from_dict(read_yaml(run.config), str(run.config)).given) if run else {}
    for key in ("do_train", "do_eval", "do_predict", "export_dir"):
        given.pop(key, None)
    if (path / "adapter_config.json").exists():
        given["adapter_name_or_path"] = [str(path)]
        given.setdefault("model_name_or_path", _base_of(path))
    elif any(path.glob("model*.safetensors")):
        given["model_name_or_path"] = str(path)
    else:
        state = run.state() if run else "no run"
        raise ModelError("No weights in this folder (state: {state}).", path, "Finish the training.", state=state)
    return RunConfig.from_dict({**given, **settings}, str(path), permissions)


def run_of(path: Path) -> RunDir | None:
    """The run that a folder is, or whose checkpoint it is."""
    for folder in (path, path.parent):
        if RunDir(folder).exists() and (folder == path or path.name.startswith("checkpoint-")):
            return RunDir(folder)
    return None


def _base_of(adapter: Path) -> str:
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if not base:
        raise ModelError("The adapter does not name its base model.", adapter, "Add model_name_or_path=MODEL.")
    return str(base)
