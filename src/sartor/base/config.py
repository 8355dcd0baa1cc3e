"""RunConfig: what a person asked for, parsed strictly from flat YAML and `key=value`, frozen; it decides nothing."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sartor.base.errors import ConfigError, did_you_mean
from sartor.base.llamafactory_keys import IGNORED_KEYS, SETTINGS_WITHOUT_EFFECT, UNSUPPORTED_KEYS
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
    TrainSettings,
)

SECRET_KEY = re.compile(r"(api_key|token|password|secret)$")
ENV_REFERENCE = re.compile(r"\$\{[A-Z_][A-Z0-9_]*\}")


class RunConfig(BaseModel):
    """The settings asked for, by section. `given` holds only what was written, flat; `ignored_keys` what has no
    effect and why; `permissions` come from the person, never from a file.
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
    ignored_keys: Mapping[str, str] = Field(default_factory=dict)
    permissions: Permissions = NOTHING_ALLOWED

    @classmethod
    def from_dict(
        cls, settings: Mapping[str, Any], where: str = "", permissions: Permissions = NOTHING_ALLOWED
    ) -> RunConfig:
        """Parse flat settings.

        Raises: ConfigError for an unknown key (with the nearest), a refused key (with what to write), a bad value,
        a literal secret.
        """
        grouped: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        ignored: dict[str, str] = {}
        for key, value in settings.items():
            section = section_of().get(key)
            _refuse_literal_secret(key, value, where)
            if section and not (key in UNSUPPORTED_KEYS and value):
                if value is not None:
                    grouped[section][key] = value
                    if key in SETTINGS_WITHOUT_EFFECT:
                        ignored[key] = SETTINGS_WITHOUT_EFFECT[key]
            elif key in IGNORED_KEYS:
                ignored[key] = IGNORED_KEYS[key]
            elif key in UNSUPPORTED_KEYS:
                raise ConfigError(f"The setting {key!r} is not used here.", where, UNSUPPORTED_KEYS[key])
            else:
                raise ConfigError(f"There is no setting {key!r}.", where, did_you_mean(key, section_of()))
        sections = {name: _parse_section(name, values, where) for name, values in grouped.items()}
        return cls(**sections, given=dict(settings), ignored_keys=ignored, permissions=permissions)

    def replace(self, **settings: Any) -> RunConfig:
        """The same config with some settings changed; parsed as strictly."""
        return RunConfig.from_dict({**self.given, **settings}, permissions=self.permissions)

    def allowing(self, permissions: Permissions) -> RunConfig:
        """The same settings, with what a person allowed."""
        return self.model_copy(update={"permissions": permissions})

    def flat(self) -> dict[str, Any]:
        """Every setting and its value, defaults included, in the order of the sections."""
        return {key: value for name in SECTIONS for key, value in getattr(self, name).model_dump().items()}


@functools.cache
def section_of() -> Mapping[str, str]:
    """Setting → the one section that holds it."""
    return {key: name for name, section in SECTIONS.items() for key in section.model_fields}


def read_config(path: Path | None, overrides: Iterable[str] = (), **settings: Any) -> RunConfig:
    """A YAML file, then `key=value` overrides, then keyword settings, each over the one before.

    Raises: ConfigError naming file, line and column for bad YAML, or the setting.
    """
    merged: dict[str, Any] = dict(read_yaml(path)) if path else {}
    where = str(path) if path else ""
    for item in overrides:
        merged.update([parse_override(item)])
    merged.update(settings)
    return RunConfig.from_dict(merged, where)


def read_yaml(path: Path) -> Mapping[str, Any]:
    """One flat mapping from a YAML file. Raises: ConfigError when it is not one."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.absolute().parent.glob("*.y*ml")])
        raise ConfigError("The settings file is not there.", str(path), near) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"The file is not UTF-8 (byte {error.start}).", str(path), "Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        raise ConfigError("The YAML cannot be read.", where, str(getattr(error, "problem", error))) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("The file holds no settings.", str(path), "Write one `key: value` a line.")
    return {str(key): value for key, value in content.items()}


def parse_override(item: str) -> tuple[str, Any]:
    """`key=value` with the value read as YAML. Raises: ConfigError when there is no `=`."""
    key, equals, value = item.partition("=")
    if not equals:
        raise ConfigError(f"{item!r} is not a setting.", "command line", "Write key=value, as in learning_rate=1e-4.")
    return key.strip().lstrip("-").replace("-", "_"), yaml.safe_load(value) if value.strip() else None


def to_yaml(settings: Mapping[str, Any]) -> str:
    """Flat settings as YAML, in their order."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return yaml.safe_dump(plain, allow_unicode=True, sort_keys=False)


def _parse_section(name: str, values: Mapping[str, Any], where: str) -> Any:
    try:
        return SECTIONS[name].model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else name
        description = SECTIONS[name].model_fields[key].description if key in SECTIONS[name].model_fields else ""
        raise ConfigError(
            f"{key}: {first['msg']} (given: {values.get(key)!r}).", where or "settings", f"{key}: {description}"
        ) from None


def _refuse_literal_secret(key: str, value: Any, where: str) -> None:
    if value and SECRET_KEY.search(key) and not ENV_REFERENCE.fullmatch(str(value)):
        raise ConfigError(
            f"{key} holds a secret in plain text.", where, f"Put it into the environment and write {key}: ${{MY_KEY}}."
        )
