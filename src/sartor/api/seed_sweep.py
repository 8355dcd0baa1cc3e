"""`compare --seeds n`: repeat the training with other seeds on the same split, and report the spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sartor.api.resolve_target import settings_of
from sartor.api.training import train
from sartor.base.i18n import ntr
from sartor.base.permissions import Permissions
from sartor.base.rundir import RunDir
from sartor.evaluation.verdict import spread_of
from sartor.evaluation.verdict_text import verdict_json

if TYPE_CHECKING:
    from sartor.evaluation.verdict import Verdict

Judge = Callable[[RunDir], "Verdict"]


def with_spread(run: RunDir, verdict: Verdict, seeds: int, judge: Judge, permissions: Permissions) -> Verdict:
    """The verdict with the spread over `seeds` runs, this one included; writes verdict.json.

    A difference whose sign depends on the seed is not proven, whatever one run's rows say.

    The others are next to the run, as `<name>-seed-<seed>`: finished ones are not trained again, interrupted ones are
    resumed. `judge` returns a run's own verdict. Raises: what `train` raises.
    """

    config = settings_of(run)
    split_seed = config.train.seed if config.data.split_seed is None else config.data.split_seed
    differences = [verdict.primary.difference]
    for seed in range(config.train.seed + 1, config.train.seed + seeds):
        target = run.path.with_name(f"{run.name}-seed-{seed}")
        settings = config.replace(
            seed=seed,
            split_seed=split_seed,
            output_dir=str(target),
            overwrite_output_dir=False,
        )
        differences.append(judge(train(settings, permissions=permissions).dir).primary.difference)
    spread = spread_of(differences)
    notes, outcome = verdict.notes, verdict.outcome
    if spread.same_sign < len(differences):
        note = ntr(
            "With {count} of {total} seeds, the difference has the opposite sign.",
            "With {count} of {total} seeds, the difference has the opposite sign.",
            count=len(differences) - spread.same_sign,
            total=len(differences),
        )
        notes = (*notes, note)
        if verdict.outcome in ("better", "worse"):
            outcome = "not_proven"
    verdict = replace(verdict, spread=spread, notes=notes, outcome=outcome)
    run.write_json("verdict.json", verdict_json(verdict))
    return verdict
