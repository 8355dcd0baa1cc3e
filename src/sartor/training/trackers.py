"""Sends a run's numbers to trackers (trackio, wandb, swanlab, mlflow, tensorboard) through accelerate's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sartor.base.errors import ConfigError

LOGGED_FIELDS = {
    "step": ("loss", "learning_rate", "grad_norm", "tokens", "label_tokens", "seconds", "memory_bytes", "epoch"),
    "eval": ("eval_loss", "epoch"),
}


class Trackers:
    """A callback of the loop: one tracker each, started when the training starts, finished when it ends."""

    def __init__(self, names: Sequence[str], run_name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Raises: ConfigError when a tracker is unknown or its package is not here."""
        from accelerate.state import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        PartialState()
        known = {str(getattr(key, "value", key)): value for key, value in LOGGER_TYPE_TO_CLASS.items()}
        there = {str(getattr(key, "value", key)) for key in get_available_trackers()}
        self._trackers: list[Any] = []
        self._settings = {key: v for key, v in settings.items() if isinstance(v, str | int | float | bool)}
        for name in names:
            if name == "none":
                continue
            if name not in known:
                raise ConfigError(f"There is no tracker {name!r}.", "report_to", f"Known: {', '.join(sorted(known))}.")
            if name not in there:
                raise ConfigError(f"The tracker {name} is not installed.", "report_to", f"Run: pip install {name}")
            made = known[name]
            self._trackers.append(made(run_name, folder) if made.requires_logging_directory else made(run_name))

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
