"""The settings of a training: those of a file, or what was typed over Sartor's defaults for a first training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sartor.api.open_run import is_replaced, run_folder
from sartor.base.config import RunConfig, read_config, read_yaml
from sartor.base.settings import FIRST_TRAINING

_MEANS_NOTHING: Mapping[str, Callable[[RunConfig], object]] = {
    "val_size": lambda config: config.data.eval_dataset or config.data.streaming,
    "num_train_epochs": lambda config: config.train.max_steps > 0,
    "warmup_ratio": lambda config: config.train.warmup_steps,
    "lora_rank": lambda config: config.model.adapter_name_or_path and not config.method.create_new_adapter,
}
"""Defaults that other settings take the place of, and when."""


def training_settings(
    config: str | Path | RunConfig | None,
    overrides: Iterable[str] = (),
    *,
    fresh: bool = False,
    **settings: Any,
) -> RunConfig:
    """The settings of a YAML file or a RunConfig, overridden. Without either, what is not given is `FIRST_TRAINING`'s.

    A run that goes on keeps the defaults that it began with.

    Raises: ConfigError as `read_config` does.
    """
    if isinstance(config, RunConfig):
        return config.replace(**settings) if settings else config
    found = read_config(Path(config) if config is not None else None, overrides, **settings)
    return found if config is not None else first_training(found, _left_out_by_run(found, fresh))


def first_training(config: RunConfig, but: frozenset[str] = frozenset()) -> RunConfig:
    """The settings completed by those of a first training, other than `but`; `defaults` says which.

    Other stages than sft, and other methods than LoRA, keep their own.
    """
    if (config.method.stage, config.method.finetuning_type) != ("sft", "lora"):
        return config
    known = config.flat()
    added = {
        key: value
        for key, value in FIRST_TRAINING.items()
        if key not in config.given and key not in but and value != known[key]
        if key not in _MEANS_NOTHING or not _MEANS_NOTHING[key](config)
    }
    return config.replace(**added).model_copy(update={"defaults": added})


def _left_out_by_run(config: RunConfig, fresh: bool) -> frozenset[str]:
    """What a run that goes on did not say: it was begun with a settings file, or by an older version."""
    run = run_folder(config)
    if not run.is_planned() or is_replaced(run.state(), config, fresh):
        return frozenset()
    return frozenset(FIRST_TRAINING) - read_yaml(run.config).keys()
