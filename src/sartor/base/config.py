"""RunConfig: the settings as given, parsed strictly from flat YAML and `key=value`, and frozen."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from sartor.base.errors import ConfigError, did_you_mean
from sartor.base.i18n import Text, tr
from sartor.base.llamafactory_keys import IGNORED_KEYS, SETTINGS_WITHOUT_EFFECT, UNSUPPORTED_KEYS, changes_nothing
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.settings import (
    SECTIONS,
    DataSettings,
    EvaluationSettings,
    ExportSettings,
    GenerationSettings,
    MethodSettings,
    ModelSettings,
    PromptSettings,
    Section,
    TrainSettings,
)
from sartor.base.uploads import allowing_typed
from sartor.base.yaml_values import load_yaml, unusable

SECRET_KEY = re.compile(r"(api_key|token|password|secret)$")
MAX_SHOWN = 80
"""Characters of a faulty setting that are shown."""
ENV_REFERENCE = re.compile(r"\$\{[A-Z_][A-Z0-9_]*\}")


class RunConfig(BaseModel):
    """All settings, by section.

    `given` holds only the settings that were written, flat; `ignored_keys` those without effect, and why.
    `defaults` are those of `given` that nobody wrote, but that a first training is advised to use.
    `permissions` come from the command line or from code, never from a file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    prompt: PromptSettings = PromptSettings()
    method: MethodSettings = MethodSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    generation: GenerationSettings = GenerationSettings()
    export: ExportSettings = ExportSettings()
    given: Mapping[str, Any] = Field(default_factory=dict)
    defaults: Mapping[str, Any] = Field(default_factory=dict)
    ignored_keys: Mapping[str, Text] = Field(default_factory=dict)
    permissions: Permissions = NOTHING_ALLOWED

    @classmethod
    def from_dict(
        cls, settings: Mapping[str, Any], where: str = "", permissions: Permissions = NOTHING_ALLOWED
    ) -> RunConfig:
        """Parse flat settings.

        Raises: ConfigError for an unknown setting (naming the closest), an unsupported one (naming the alternative),
        an invalid value, or a secret in plain text.
        """
        grouped: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        ignored: dict[str, Text] = {}
        for key, value in settings.items():
            section = section_of().get(key)
            _refuse_literal_secret(key, value, where)
            _refuse_unusable(key, value, where)
            if key in UNSUPPORTED_KEYS and not changes_nothing(key, value):
                raise ConfigError("Unsupported setting {setting!r}.", where, UNSUPPORTED_KEYS[key], setting=key)
            if section:
                if value is not None:
                    grouped[section][key] = value
                    if key in SETTINGS_WITHOUT_EFFECT:
                        ignored[key] = SETTINGS_WITHOUT_EFFECT[key]
            elif key in IGNORED_KEYS:
                ignored[key] = IGNORED_KEYS[key]
            elif key not in UNSUPPORTED_KEYS:
                near = did_you_mean(key, section_of()) or tr("`sartor settings` lists them all.")
                raise ConfigError("Unknown setting {setting!r}.", where, near, setting=key)
        sections: dict[str, Any] = {name: _parse_section(name, values, where) for name, values in grouped.items()}
        return cls(**sections, given=dict(settings), ignored_keys=ignored, permissions=permissions)

    def replace(self, **settings: Any) -> RunConfig:
        """A copy with some settings changed, parsed just as strictly."""
        return RunConfig.from_dict({**self.given, **settings}, permissions=self.permissions)

    def allowing(self, permissions: Permissions) -> RunConfig:
        """The same settings with these permissions; hosts that were allowed stay so."""
        hosts = (*self.permissions.allow_upload, *permissions.allow_upload)
        return self.model_copy(update={"permissions": dataclasses.replace(permissions, allow_upload=hosts)})

    def flat(self) -> dict[str, Any]:
        """Every setting with its value, including defaults, in the order of the sections."""
        return {key: value for name in SECTIONS for key, value in getattr(self, name).model_dump().items()}


@functools.cache
def section_of() -> Mapping[str, str]:
    """Setting → its section."""
    return {key: name for name, section in SECTIONS.items() for key in section.model_fields}


def read_config(path: Path | None, overrides: Iterable[str] = (), **settings: Any) -> RunConfig:
    """Settings from a YAML file, overridden by `key=value` items, overridden by keyword arguments.

    Raises: ConfigError with file, line and column for invalid YAML, or with the setting.
    """
    merged: dict[str, Any] = dict(read_yaml(path)) if path else {}
    typed = {**dict(parse_override(item) for item in overrides), **settings}
    merged.update(typed)
    return RunConfig.from_dict(merged, str(path) if path else "", allowing_typed(NOTHING_ALLOWED, typed))


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Read one flat mapping from a YAML file, or from the one in a run's folder. Raises: ConfigError for all else."""
    path = yaml_file(path)
    try:
        content = load_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.absolute().parent.glob("*.y*ml")])
        raise ConfigError("Settings file not found.", path, near, code="not-found") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            "The file is not valid UTF-8 (byte {byte}).", path, "Save it as UTF-8.", byte=error.start
        ) from None
    except OSError as error:
        raise ConfigError(
            "Could not read the file: {reason}.", path, "Pass a settings file.", reason=error.strerror
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("The file contains no settings.", path, "Write one `key: value` per line.")
    return {str(key): value for key, value in content.items()}


def yaml_file(path: Path) -> Path:
    """The file itself, or the one in a run's folder. Raises: ConfigError for other folders."""
    if not path.is_dir():
        return path
    if not (path / "config.yaml").exists():
        raise ConfigError("This is a folder, not a settings file.", path, "Give a YAML file, or a run's folder.")
    return path / "config.yaml"


def parse_override(item: str) -> tuple[str, Any]:
    """Split `key=value` and read the value as YAML. Raises: ConfigError without a `=` or for invalid YAML."""
    key, equals, value = item.partition("=")
    if not equals:
        raise ConfigError(
            "{item!r} is not a setting.",
            tr("command line"),
            "Write key=value, for example learning_rate=1e-4.",
            item=item,
        )
    where = item if len(item) <= MAX_SHOWN else f"{item[:MAX_SHOWN]}…"
    parsed = load_yaml(value, where) if value.strip() else None
    return key.strip().lstrip("-").replace("-", "_"), parsed


def to_yaml(settings: Mapping[str, Any]) -> str:
    """Flat settings as YAML, in the given order."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return yaml.safe_dump(plain, allow_unicode=True, sort_keys=False)


def _parse_section(name: str, values: Mapping[str, Any], where: str) -> Section:
    try:
        return SECTIONS[name].model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else name
        field = SECTIONS[name].model_fields.get(key)
        description = Text(field.description if field and field.description else "")
        fix = tr("{setting}: {description}", setting=key, description=description)
        if first["type"] == "unknown_plugin":
            fix = tr("Choose one of: {known}.", known=", ".join(first["ctx"]["names"]))
        raise ConfigError(_invalid_value(key, values.get(key), first), where or tr("settings"), fix) from None


def _invalid_value(setting: str, value: Any, error: ErrorDetails) -> Text:
    """What is wrong with a value, from the error type that pydantic reports."""
    kind, context, path = error["type"], error.get("ctx", {}), error["loc"]
    if len(path) > 1 and isinstance(path[1], str):  # one alternative of a union: the others failed too
        return tr("Invalid value for {setting}: {value!r}.", setting=setting, value=value)
    if len(path) > 1:  # an item of a list
        value = error["input"]
    given = {"setting": setting, "value": value}
    match kind:
        case "int_type" | "int_parsing" | "int_from_float":
            return tr("{setting} must be an integer, not {value!r}.", **given)
        case "float_type" | "float_parsing" | "finite_number":
            return tr("{setting} must be a number, not {value!r}.", **given)
        case "bool_type" | "bool_parsing":
            return tr("{setting} must be true or false, not {value!r}.", **given)
        case "string_type":
            return tr("{setting} must be text, not {value!r}.", **given)
        case "tuple_type" | "list_type":
            return tr("{setting} must be a list, not {value!r}.", **given)
        case "dict_type" | "mapping_type":
            return tr("{setting} must be a mapping, not {value!r}.", **given)
        case "literal_error":
            choices = context["expected"].replace("'", "").replace(" or ", ", ")
            return tr("{setting} must be one of {choices}, not {value!r}.", choices=choices, **given)
        case "greater_than":
            return tr("{setting} must be greater than {limit:g}, not {value!r}.", limit=context["gt"], **given)
        case "greater_than_equal":
            return tr("{setting} must be at least {limit:g}, not {value!r}.", limit=context["ge"], **given)
        case "less_than":
            return tr("{setting} must be less than {limit:g}, not {value!r}.", limit=context["lt"], **given)
        case "less_than_equal":
            return tr("{setting} must be at most {limit:g}, not {value!r}.", limit=context["le"], **given)
        case "unknown_plugin":
            return tr("Unknown {setting} {value!r}.", **given)
        case "missing":
            return tr("{setting} is missing.", setting=setting)
    return tr("{setting}: {reason} (given: {value!r}).", reason=error["msg"], **given)


def _refuse_unusable(key: str, value: Any, where: str) -> None:
    if reason := unusable(value) or unusable(key):
        setting = key.encode("utf-8", "backslashreplace").decode()[:MAX_SHOWN]
        raise ConfigError(
            "{setting} {reason}.", where or tr("settings"), "Write another value.", setting=setting, reason=reason
        )


def _refuse_literal_secret(key: str, value: Any, where: str) -> None:
    if value and SECRET_KEY.search(key) and not ENV_REFERENCE.fullmatch(str(value)):
        raise ConfigError(
            "{setting} contains a secret in plain text.",
            where,
            "Put the secret in an environment variable and write {setting}: ${{MY_KEY}}.",
            setting=key,
        )
