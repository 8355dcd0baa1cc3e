"""Sends a run's numbers to trackers (trackio, wandb, swanlab, mlflow, tensorboard) through accelerate's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.state import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from sartor.base.errors import ConfigError, did_you_mean

LOGGED_FIELDS = {
    "step": ("loss", "learning_rate", "grad_norm", "tokens", "label_tokens", "seconds", "memory_bytes", "epoch"),
    "eval": ("eval_loss", "epoch"),
}


class Trackers:
    """A callback of the loop: starts each tracker with the training and finishes it at the end."""

    def __init__(self, names: Sequence[str], run_name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Raises: ConfigError when a tracker is unknown or its package is not installed."""
        PartialState()
        known = {str(getattr(key, "value", key)): value for key, value in LOGGER_TYPE_TO_CLASS.items()}
        installed = {str(getattr(key, "value", key)) for key in get_available_trackers()}
        self._trackers: list[GeneralTracker] = []
        self._settings = {key: v for key, v in settings.items() if isinstance(v, str | int | float | bool)}
        for name in names:
            if name == "none":
                continue
            if name not in known:
                raise ConfigError("Unknown tracker {name!r}.", "report_to", did_you_mean(name, known), name=name)
            if name not in installed:
                raise ConfigError(
                    "The tracker {name} is not installed.", "report_to", "Run: pip install {name}", name=name
                )
            tracker = known[name]
            self._trackers.append(
                tracker(run_name, folder) if tracker.requires_logging_directory else tracker(run_name)
            )

    def on_event(self, event: Mapping[str, Any]) -> None:
        kind = event["kind"]
        if kind == "started":
            for tracker in self._trackers:
                tracker.start()
                tracker.store_init_configuration(self._settings)
        elif kind in LOGGED_FIELDS:
            values = {f"{'eval' if kind == 'eval' else 'train'}/{key}": event[key] for key in LOGGED_FIELDS[kind]}
            for tracker in self._trackers:
                tracker.log(values, step=event["step"])
        elif kind in ("finished", "failed", "interrupted"):
            for tracker in self._trackers:
                tracker.finish()
