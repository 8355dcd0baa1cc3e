"""Every stage ends in a verdict on its held-out rows: preferences by their margin, documents by their loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.api.predicting import as_config, load_engine
from sartor.api.run_rows import rows_of
from sartor.base.errors import ConfigError, RunError
from sartor.base.types import Pair
from sartor.evaluation.preferences import balanced, likelihood_scores, margin_scores
from sartor.evaluation.verdict import Verdict
from support.stage_datasets import pairs, texts, write_datasets

PAIRS = pairs(64)
JUDGED = [
    {"instruction": row["instruction"], "output": row["chosen"] if i % 3 else row["rejected"], "tag": bool(i % 3)}
    for i, row in enumerate(PAIRS)
]
TEXTS = texts(64)
STAGES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "dpo": ({"stage": "dpo", "dataset": "pairs"}, "preference-margin", ["preference-accuracy", "chosen-loss"]),
    "dpo full": (
        {"stage": "dpo", "dataset": "pairs", "finetuning_type": "full", "learning_rate": 1e-3},
        "preference-margin",
        ["preference-accuracy"],
    ),
    "orpo": ({"stage": "dpo", "dataset": "pairs", "pref_loss": "orpo"}, "preference-margin", ["preference-accuracy"]),
    "kto": ({"stage": "kto", "dataset": "judged"}, "preference-margin", ["rouge-l.char"]),
    "rm": ({"stage": "rm", "dataset": "pairs"}, "reward-accuracy", ["reward-margin"]),
    "pt": ({"stage": "pt", "dataset": "novel", "cutoff_len": 64, "overlong": "split"}, "loss", []),
}


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: Path) -> dict[str, Any]:
    data = tmp_path / "data"
    write_datasets(data, {"pairs": PAIRS, "judged": JUDGED, "novel": TEXTS})
    return {
        "model_name_or_path": str(tiny_model_dir),
        "dataset_dir": str(data),
        "val_size": 24,
        "use_cpu": True,
        "output_dir": str(tmp_path / "runs" / "one"),
        "num_train_epochs": 4,
        "dtype": "float32",
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "plot_loss": False,
        "max_new_tokens": 4,
        "metrics": ["rouge-l.char"],
        "forgetting_probe": False,
    }


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_learned_is_found_better(settings: dict[str, Any], name: str) -> None:
    stage, primary, others = STAGES[name]
    run = api.train(**{**settings, **stage})
    verdict = api.compare(run)
    assert (verdict.outcome, verdict.primary.metric) == ("better", primary)
    assert {*others} <= {other.metric for other in verdict.others}
    assert Verdict.from_json(run.dir.read_json("verdict.json")).primary == verdict.primary
    assert api.report(run).exists()


def test_the_difference_in_margin_is_dpos_implicit_reward(settings: dict[str, Any]) -> None:
    """ln π(chosen)/π_ref(chosen) − ln π(rejected)/π_ref(rejected), by hand from the losses."""
    run = api.train(**settings, stage="dpo", dataset="pairs")
    verdict = api.compare(run)
    engine, config = load_engine(as_config(run.path, {})), as_config(run.path, {})
    pairs = [row for row in rows_of(run.dir, config).held_out_ids if isinstance(row, Pair)]
    logp = {
        (which, side): [-loss.nll_sum for loss in engine.losses([getattr(p, side) for p in pairs], weights=which)]
        for which in ("base", "tuned")
        for side in ("chosen", "rejected")
    }
    rewards = [
        (logp["tuned", "chosen"][i] - logp["base", "chosen"][i])
        - (logp["tuned", "rejected"][i] - logp["base", "rejected"][i])
        for i in range(len(pairs))
    ]
    assert verdict.primary.difference == pytest.approx(math.fsum(rewards) / len(rewards), rel=1e-5)
    scores, _ = likelihood_scores(engine, pairs, "tuned")
    prefers = [w > r for w, r in zip(logp["tuned", "chosen"], logp["tuned", "rejected"], strict=True)]
    assert scores["preference-accuracy"].per_row == tuple(100.0 * p for p in prefers)


def test_unequal_numbers_of_good_and_bad_answers_count_the_same() -> None:
    """The mean is mean(good) − mean(bad): a model that only raises everything gains nothing."""
    assert sum(balanced([3.0, 5.0, 1.0], [True, True, False])) / 3 == pytest.approx(4.0 - 1.0)
    assert sum(balanced([2.0] * 10, [True] * 9 + [False])) == pytest.approx(0.0)
    assert margin_scores([0.5, -0.5, 0.0])["preference-accuracy"].per_row == (100.0, 0.0, 0.0)


def test_preferences_are_predicted_by_their_better_answers(settings: dict[str, Any]) -> None:
    run = api.train(**{**settings, "max_steps": 1}, stage="dpo", dataset="pairs")
    assert {row.reference for row in api.predict(run.path).rows} <= {row["chosen"] for row in PAIRS}
    other = {**settings, "max_steps": 1, "output_dir": str(run.path.with_name("kto"))}
    run = api.train(**other, stage="kto", dataset="judged")
    assert {row.reference for row in api.predict(run.path).rows} <= {row["output"] for row in JUDGED if row["tag"]}


def test_a_reward_model_and_documents_say_what_they_are_good_for(settings: dict[str, Any]) -> None:
    run = api.train(**{**settings, "max_steps": 1}, stage="rm", dataset="pairs")
    for command in (api.predict, api.chat):
        with pytest.raises(ConfigError, match="reward model") as error:
            command(run.path)
        assert f"sartor compare {run.path}" in str(error.value.fix)
    assert "chance" in api.compare(run).base_name
    other = {**settings, "max_steps": 1, "output_dir": str(run.path.with_name("pt"))}
    run = api.train(**other, stage="pt", dataset="novel")
    with pytest.raises(RunError, match="no answers") as found:
        api.predict(run.path)
    assert f"sartor compare {run.path}" in str(found.value.fix)


def test_the_pieces_of_a_document_are_one_section(settings: dict[str, Any]) -> None:
    run = api.train(**{**settings, "val_size": 24, **STAGES["pt"][0]})
    verdict = api.compare(run)
    assert verdict.primary.n > 24
    assert verdict.primary.clusters == 24
    assert any("Perplexity" in str(note) for note in verdict.notes)
