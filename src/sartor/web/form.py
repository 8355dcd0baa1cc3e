"""The fields of the settings form, made from the settings' schema, and which settings the page allows."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.constants import HF_HUB_CACHE

from sartor.api.training_settings import first_training
from sartor.base.config import RunConfig, to_yaml
from sartor.base.errors import ConfigError
from sartor.base.i18n import tr
from sartor.base.settings import SECTIONS, PluginChoices
from sartor.base.uploads import uploads_of
from sartor.base.yaml_values import load_yaml
from sartor.web.workspace import Workspace

COMMON = (
    "model_name_or_path",
    "dataset",
    "val_size",
    "template",
    "finetuning_type",
    "lora_rank",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "cutoff_len",
    "lr_scheduler_type",
    "warmup_ratio",
    "save_steps",
    "output_dir",
)
"""Shown at the top of the form; the others are folded."""
HIDDEN = (
    "trust_remote_code",
    "judge_api_key",
    "do_train",
    "do_predict",
    "do_eval",
    "deepspeed",
    "resume_from_checkpoint",
)
"""Not shown. The first two cannot be set from the page at all."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
"""A model's name on a hub; everything else is a path."""
MAX_YAML_CHARACTERS = 200_000
"""Characters. YAML aliases are refused too: a few nested ones can expand to more memory than there is."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting of the form. `choices` is None for free text."""

    key: str
    section: str
    description: str
    default: Any
    choices: tuple[Any, ...] | None


def fields() -> list[Field]:
    """All settings of the form, in the order of the sections."""
    return [
        Field(
            key,
            name,
            info.description or "",
            info.get_default(call_default_factory=True),
            choices(info.annotation) or plugin_names(info.metadata),
        )
        for name, section in SECTIONS.items()
        for key, info in section.model_fields.items()
        if key not in HIDDEN
    ]


def plugin_names(metadata: Iterable[Any]) -> tuple[str, ...] | None:
    """The choices of a setting that names a plug-in."""
    return next((item.names() for item in metadata if isinstance(item, PluginChoices)), None)


def choices(annotation: Any) -> tuple[Any, ...] | None:
    """The values of a Literal or a bool, with None (unset) if it is allowed; None for other types."""
    origin = typing.get_origin(annotation)
    if annotation is bool:
        return (True, False)
    if origin is Literal:
        return typing.get_args(annotation)
    if origin is typing.Annotated:
        return choices(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        parts = [choices(part) for part in typing.get_args(annotation) if part is not type(None)]
        if all(part is not None for part in parts):
            return (None, *(value for part in parts for value in part or ()))
    return None


def shown(value: Any) -> str:
    """A value as one types it."""
    if value is None or value == ():
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) and 1e-4 <= abs(value) < 1e6 else str(value)


def typed(text: str) -> Any:
    """Typed text as a YAML value; None for blank text, and the text itself if it is not valid YAML."""
    try:
        return load_yaml(text, "") if text.strip() else None
    except ConfigError:
        return text


def parse_yaml(text: str) -> dict[str, Any]:
    """Flat settings from YAML text. Raises: ConfigError with line and column."""
    if len(text) > MAX_YAML_CHARACTERS:
        size = tr("{count:,} characters", count=len(text))
        raise ConfigError("The text is too long for settings.", size, "Choose a settings file.")
    found = load_yaml(text, "")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError("The YAML is not a mapping of settings.", "YAML", "Write one `key: value` per line.")
    return {str(key): value for key, value in found.items()}


def command(settings: Mapping[str, Any]) -> str:
    """The command line that trains with the same settings: it names those, too, that it would choose otherwise."""
    words = []
    for key, value in {**settings, **_left_to_llama_factory(settings)}.items():
        text = to_yaml({key: value}).partition(":")[2].strip() if isinstance(value, bool) else shown(value)
        words.append(f"{key}='{text}'" if set(text) & set(" $'\"&;|<>()*?[]#~`\\!{}") else f"{key}={text}")
    return " ".join(["sartor train", *words])


def _left_to_llama_factory(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are left out here, and for which a command without a file has other defaults."""
    try:
        config = RunConfig.from_dict(settings)
    except ConfigError:
        return {}
    plain = config.flat()
    return {key: plain[key] for key in first_training(config).defaults}


def check_paths(workspace: Workspace, config: RunConfig) -> None:
    """Refuse what the command line may do and the page may not.

    Raises: ConfigError for paths outside the workspace, and for settings that only the command line can set.
    """
    check_permissions(config)
    check_run(workspace, config)
    resumed = config.train.resume_from_checkpoint
    files = [
        config.train.output_dir,
        config.export.export_dir,
        config.train.deepspeed,
        resumed if isinstance(resumed, str) else None,
    ]
    for path in filter(None, files):
        _require_inside(workspace, path)
    if config.train.output_dir and not _in_runs(workspace, config.train.output_dir):
        raise ConfigError(
            "On the page, output_dir must be directly in runs/.", config.train.output_dir, "Write runs/NAME."
        )


def check_run(workspace: Workspace, config: RunConfig) -> None:
    """Refuse a finished run whose own settings lead out of the page's folders, to its model or its data.

    Raises: ConfigError.
    """
    check_model(workspace, config)
    for path in filter(None, (config.data.dataset_dir, config.evaluation.judge_labels)):
        _require_inside(workspace, path)


def check_model(workspace: Workspace, config: RunConfig) -> None:
    """Refuse a template, model or adapter outside the page's folders: a run's config.yaml names them as well.

    Raises: ConfigError.
    """
    template = config.prompt.template
    if template and not re.fullmatch(r"\w+", template):
        _require_inside(workspace, template)
    models = (config.model.model_name_or_path, *config.model.adapter_name_or_path, config.method.ref_model)
    for name in filter(None, models):
        if not HUB_NAME.fullmatch(name) or (workspace.folder / name).exists():
            _require_inside(workspace, name, Path(HF_HUB_CACHE))  # where the base of an adapter was found by its name


def _require_inside(workspace: Workspace, path: str, *more: Path) -> None:
    """Raises: ConfigError for a path that, after following links, is in none of the page's folders, nor in `more`."""
    roots = (workspace.folder, *workspace.model_dirs, *more)
    try:
        place = (workspace.folder / path).resolve()
        inside = not path.startswith("~") and any(place.is_relative_to(root.resolve()) for root in roots)
    except (OSError, ValueError, RuntimeError):  # a NUL character, circular links
        inside = False
    if not inside:
        raise ConfigError(
            "The path is outside the folder of this page.",
            path,
            "Choose a path in it, or start the page with --model-dir.",
        )


def check_permissions(config: RunConfig) -> None:
    """Refuse settings that bring in code or a secret, or send data away.

    Raises: ConfigError for remote code, a metric that is a Python file, the key of a judge, and a judge or a tracker
    on another machine.
    """
    refused = {key: config.given.get(key) for key in ("trust_remote_code", "judge_api_key") if config.given.get(key)}
    for name in (*config.evaluation.metrics, config.evaluation.primary_metric):
        if name.strip().lower().endswith(".py") or "/" in name or "\\" in name:
            refused["metrics"] = name
    for upload in uploads_of(config.train.report_to, config.evaluation.judge_endpoint):
        refused[upload.setting] = upload.host
    for key in refused:
        raise ConfigError("This setting cannot be used on the page.", key, "Remove it, or use the command line.")


def _in_runs(workspace: Workspace, output_dir: str) -> bool:
    place = (workspace.folder / output_dir).resolve()
    return place.parent == workspace.runs.resolve() and not place.name.startswith(".")


def free_name(workspace: Workspace, stem: str, to_come: Collection[str] = ()) -> str:
    """`runs/pride`, or `runs/pride-2` if that is taken, also by one of the runs `to_come`."""
    number = 1
    while (workspace.runs / (name := stem if number == 1 else f"{stem}-{number}")).exists() or name in to_come:
        number += 1
    return (Path("runs") / name).as_posix()
