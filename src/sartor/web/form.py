"""The settings' schema as the fields of a form, and what the page allows of settings; it draws nothing."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from sartor.base.config import RunConfig, to_yaml
from sartor.base.errors import ConfigError
from sartor.base.settings import SECTIONS, PluginChoices
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
"""Open on the page; the others are folded."""
HIDDEN = (
    "trust_remote_code",
    "judge_api_key",
    "do_train",
    "do_predict",
    "do_eval",
    "deepspeed",
    "resume_from_checkpoint",
)
"""Not drawn. The first two cannot be switched on from the page at all."""
DEFAULTS: Mapping[str, Any] = {
    "model_name_or_path": "smollm2-135m",
    "stage": "sft",
    "finetuning_type": "lora",
    "lora_rank": 16,
    "val_size": 0.1,
    "cutoff_len": 1024,
    "learning_rate": 5e-4,
    "num_train_epochs": 4.0,
    "per_device_train_batch_size": 8,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "save_steps": 50,
}
"""The form as it opens: LoRA on the embedded model."""
MAX_YAML_CHARACTERS = 200_000
"""Characters. A few lines that refer to each other can stand for more memory than there is: no references either."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting as a form shows it. `choices` is None where any text may be written."""

    key: str
    section: str
    description: str
    default: Any
    choices: tuple[Any, ...] | None


def fields() -> list[Field]:
    """All settings that the page draws, in the order of the sections."""
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
    """The values of a Literal or of a bool, None (unset) among them where it is allowed."""
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
    """A value as a person types it."""
    if value is None or value == ():
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) and 1e-4 <= abs(value) < 1e6 else str(value)


def typed(text: str) -> Any:
    """What a person typed, as YAML reads it; None where nothing stands. Raises: ConfigError."""
    try:
        return yaml.safe_load(text) if text.strip() else None
    except yaml.YAMLError:
        return text


def parse_yaml(text: str) -> dict[str, Any]:
    """Flat settings from the text beside the form. Raises: ConfigError with line and column."""
    if len(text) > MAX_YAML_CHARACTERS:
        raise ConfigError("This is too long for settings.", f"{len(text):,} characters", "Is it another file?")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ConfigError("Settings hold no references.", "*", "Write each value out.")
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError("The YAML cannot be read.", where, str(getattr(error, "problem", error))) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError("This holds no settings.", "YAML", "Write one `key: value` a line.")
    return {str(key): value for key, value in found.items()}


def command(asked: Mapping[str, Any]) -> str:
    """The command line that does the same."""
    words = []
    for key, value in asked.items():
        text = to_yaml({key: value}).partition(":")[2].strip() if isinstance(value, bool) else shown(value)
        words.append(f"{key}='{text}'" if set(text) & set(" $'\"&;|<>()*?[]#~`\\!{}") else f"{key}={text}")
    return " ".join(["sartor train", *words])


def check_paths(desk: Workspace, config: RunConfig) -> None:
    """What the page does not let through although a command line may.

    Raises: ConfigError for paths outside of the desk, and for settings that only a command line can switch on.
    """
    check_permissions(config)
    paths = [
        config.data.dataset_dir,
        config.train.output_dir,
        config.export.export_dir,
        config.train.deepspeed,
        config.method.ref_model,
        config.evaluation.judge_labels,
        *config.model.adapter_name_or_path,
        config.model.model_name_or_path,
    ]
    if isinstance(config.train.resume_from_checkpoint, str):
        paths.append(config.train.resume_from_checkpoint)
    roots = (desk.folder, *desk.model_dirs)
    for path in filter(None, paths):
        place = (desk.folder / path).resolve()
        is_path = path.startswith(("/", "~", ".")) or "\\" in path or place.exists()
        if path.startswith("~") or (is_path and not any(place.is_relative_to(root.resolve()) for root in roots)):
            raise ConfigError(
                "This lies outside the folder of the page.",
                path,
                "Choose something in it, or start the page with --model-dir.",
            )
    if config.train.output_dir and not _in_runs(desk, config.train.output_dir):
        raise ConfigError("A run of the page lies directly in runs/.", config.train.output_dir, "Write runs/NAME.")


def check_permissions(config: RunConfig) -> None:
    """Neither code nor a secret comes in by settings from the page: only a command line can name them.

    Raises: ConfigError for remote code, scripts, a metric that is a Python file, and the key of a judge.
    """
    asked = {key: config.given.get(key) for key in ("trust_remote_code", "judge_api_key") if config.given.get(key)}
    for name in (*config.evaluation.metrics, config.evaluation.primary_metric):
        if name.strip().lower().endswith(".py") or "/" in name or "\\" in name:
            asked["metrics"] = name
    for key in asked:
        raise ConfigError("This cannot be switched on from the page.", key, "Take it out; only the command line can.")


def _in_runs(desk: Workspace, output_dir: str) -> bool:
    place = (desk.folder / output_dir).resolve()
    return place.parent == desk.runs.resolve() and not place.name.startswith(".")


def free_name(desk: Workspace, stem: str) -> str:
    """`runs/pride`, or `runs/pride-2` where that is taken."""
    number = 1
    while (desk.runs / (name := stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return (Path("runs") / name).as_posix()
