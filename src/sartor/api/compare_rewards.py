"""What a reward model makes of pairs: how often it prefers the better answer, against chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sartor.api.prepare_data import make_encoder
from sartor.api.training import pad_id
from sartor.base.config import RunConfig
from sartor.base.i18n import tr
from sartor.base.rundir import RunDir
from sartor.base.types import Encoded, Pair
from sartor.evaluation.difference import Difference, Measure, compare_rows
from sartor.evaluation.preferences import ACCURACY, CHANCE, LIMITS, MARGIN, margin_scores, reward_margins
from sartor.evaluation.verdict import Findings, memorization


def reward_findings(
    run: RunDir, config: RunConfig, held_out: Sequence[Encoded], trained: Sequence[Encoded]
) -> Findings:
    """Rewards have no base to be compared with: an untrained head is noise, so chance stands in its place."""
    model, pad = _reward_model(config)
    primary, margin = _differences(model, held_out, pad, config.evaluation.margin)
    learned, _ = _differences(model, trained, pad, config.evaluation.margin)
    note = tr("A base model gives no rewards: the reward model is compared with chance (50%).")
    return Findings(
        primary, (margin,), memorization=memorization(learned, primary), notes=(note,), base_name=str(tr("chance"))
    )


def _differences(model: Any, rows: Sequence[Encoded], pad: int, margin: float | None) -> list[Difference]:
    """Accuracy against chance, and the margin of the rewards against 0."""
    scores = margin_scores(reward_margins(model, [row for row in rows if isinstance(row, Pair)], pad))
    found = []
    for name, chance, worth in ((ACCURACY, CHANCE, margin), (MARGIN, 0.0, None)):
        measure = Measure(name.replace("preference", "reward"), True, LIMITS[name], worth)
        found.append(compare_rows([chance] * scores[name].n, scores[name].per_row, measure))
    return found


def _reward_model(config: RunConfig) -> tuple[Any, int]:
    """The reward model and its padding id. Raises: ModelError."""
    from sartor.model.load import load_adapter, load_model

    trust = config.permissions.trust_remote_code
    model = load_model(config.model, trust_remote_code=trust, head="reward")
    for adapter in config.model.adapter_name_or_path:
        model = load_adapter(model, adapter)
    return model.eval(), pad_id(make_encoder(config).tokenizer)
