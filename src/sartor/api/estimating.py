"""`estimate`: the memory, time and disk a training run would take, from its longest batch and one save."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.api.open_run import run_folder, scratch_run
from sartor.api.prepare_data import make_encoder
from sartor.api.training import plan_run, rows_to_train, training_job
from sartor.api.training_settings import training_settings
from sartor.base.config import RunConfig
from sartor.base.files import system_errors
from sartor.base.permissions import Permissions
from sartor.base.process import release_memory

if TYPE_CHECKING:
    from sartor.training.plan import Plan
    from sartor.training.preflight import Estimate


@system_errors()
def estimate(
    config: str | Path | RunConfig | None = None,
    overrides: Iterable[str] = (),
    *,
    permissions: Permissions | None = None,
    **settings: Any,
) -> tuple[Estimate, Plan]:
    """What `train` with these settings would take on this machine, and the plan with its reasons. Trains nothing.

    Without a file or a RunConfig, what is not given is `FIRST_TRAINING`'s, as in `train`.

    Raises: ConfigError, DataError, ModelError; RunError when it does not fit in memory or on disk.

    Example:
        >>> found, plan = sartor.estimate("sft.yaml", max_steps=4)
        >>> plan.total_steps
        4
        >>> found.seconds > 0
        True
    """
    config = training_settings(config, overrides, **settings)
    if permissions is not None:
        config = config.allowing(permissions)
    encoder = make_encoder(config)
    rows = rows_to_train(config, encoder)
    plan = plan_run(config, rows)
    from sartor.training.loss_check import checked_plan
    from sartor.training.preflight import preflight

    try:
        with scratch_run(run_folder(config)) as run:
            job = training_job(run, config, plan, encoder, rows)
            return preflight(replace(job, plan=checked_plan(job)))
    finally:
        release_memory()
