"""Conversations that become several sequences: the ledger counts rows, the plan tokens, a comparison rows again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.api.prepare_data import make_encoder, prepare_rows
from sartor.base.config import RunConfig, read_config
from sartor.base.types import TokenSequence
from sartor.evaluation.preferences import losses_by_row
from sartor.inference.engine import RowLoss
from sartor.prompt.token_cache import encode_cached

ROWS, HELD_OUT, ANSWERS = 40, 8, 3


@pytest.fixture
def talks(project: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Conversations of three answers with reasoning, under a template that leaves it out of earlier answers."""
    rows = [
        {
            "conversations": [
                {"from": sender, "value": value}
                for turn in range(ANSWERS)
                for sender, value in (
                    ("human", f"How much is {n} and {turn}?"),
                    ("gpt", f"<think>\nI add {turn} to {n}.\n</think>\n\nIt is {n + turn}."),
                )
            ]
        }
        for n in range(ROWS)
    ]
    data = project / "data"
    (data / "talks.json").write_text(json.dumps(rows), encoding="utf-8")
    registry = json.loads((data / "dataset_info.json").read_text(encoding="utf-8"))
    registry["talks"] = {"file_name": "talks.json", "formatting": "sharegpt"}
    (data / "dataset_info.json").write_text(json.dumps(registry), encoding="utf-8")
    return {**settings, "dataset": "talks", "template": "qwen3", "val_size": HELD_OUT, "cutoff_len": 4096}


def prepared(settings: dict[str, Any]) -> Any:
    config = read_config(None, (), **settings)
    return prepare_rows(config, make_encoder(config))


def test_rows_stay_rows_in_the_ledger(talks: dict[str, Any]) -> None:
    rows = prepared(talks)
    assert (rows.ledger.read, rows.ledger.training, rows.ledger.held_out) == (ROWS, ROWS - HELD_OUT, HELD_OUT)
    assert rows.ledger.balanced
    assert Counter(row.part for row in rows.train_ids) == dict.fromkeys(range(ANSWERS), ROWS - HELD_OUT)
    assert len(rows.held_out_ids) == ANSWERS * HELD_OUT
    note = next(note for note in rows.ledger.notes if note.code == "history-split")
    assert note.params["sequences"] == ANSWERS * (ROWS - HELD_OUT)
    whole = prepared({**talks, "history": "as_rendered"})
    assert len(whole.train_ids) == ROWS - HELD_OUT
    assert [note.code for note in whole.ledger.notes if note.code.startswith("reasoning")] == ["reasoning-left-out"]


def test_a_row_with_some_long_answers_is_used_and_told(talks: dict[str, Any]) -> None:
    all_rows = prepared(talks)
    longest = max(len(row) for row in all_rows.train_ids if row.part == 0)
    rows = prepared({**talks, "cutoff_len": longest})
    assert rows.ledger.balanced
    assert rows.ledger.training == ROWS - HELD_OUT
    assert {row.part for row in rows.train_ids} == {0}
    assert "overlong-part" in {note.code for note in rows.ledger.notes}


def test_the_plan_counts_sequences_and_repeated_prompts(talks: dict[str, Any]) -> None:
    _, plan = api.estimate(**talks)
    assert plan.rows == ANSWERS * (ROWS - HELD_OUT)
    said = plan.reasons["history"].params
    sequences = [row for row in prepared(talks).train_ids if isinstance(row, TokenSequence)]
    repeated = sum(len(row) - row.label_tokens for row in sequences if row.part < ANSWERS - 1)
    assert (said["rows"], said["repeated"]) == (ROWS - HELD_OUT, repeated)
    assert said["tokens"] == sum(map(len, sequences))
    _, whole = api.estimate(**{**talks, "history": "last"})
    assert "history" not in whole.reasons


@pytest.mark.parametrize("packing", [True, False])
def test_a_comparison_has_one_loss_for_each_row(talks: dict[str, Any], packing: bool) -> None:
    run = api.train(**{**talks, "packing": packing, "neat_packing": packing, "metrics": ["exact-match"]})
    verdict = api.compare(run.dir.path, ["forgetting_probe=false"])
    assert verdict.primary.metric == "loss"
    assert verdict.primary.n == HELD_OUT
    assert verdict.answers.rows == HELD_OUT


def test_the_losses_of_a_conversation_add_up() -> None:
    losses = [RowLoss("a", 2.0, 4), RowLoss("b", 1.0, 1), RowLoss("a", 4.0, 2)]
    assert losses_by_row(losses) == [RowLoss("a", 6.0, 6), RowLoss("b", 1.0, 1)]


def test_a_stream_counts_rows_and_no_further_sequences(talks: dict[str, Any]) -> None:
    run = api.train(**{**talks, "streaming": True, "buffer_size": 8, "max_steps": 6})
    ledger = run.dir.read_json("data.json")["ledger"]
    assert (ledger["training"], ledger["held_out"], ledger["repeats"]) == (4 * 6 // ANSWERS, HELD_OUT, 0)
    assert ledger["read"] == ledger["training"] + ledger["held_out"] + ledger["left_out"]


def test_the_token_cache_keeps_the_parts(talks: dict[str, Any], tmp_path: Path) -> None:
    config = RunConfig.from_dict(talks)
    encoder = make_encoder(config)
    rows = prepared(talks)
    plain = encoder.encode_all(rows.train)
    for read in (False, True):
        kept, from_cache = encode_cached(encoder, rows.train, tmp_path / "tokens", {}, min_rows=1)
        assert from_cache is read
        assert list(kept.encoded) == list(plain.encoded)
        assert [row.part for row in kept.encoded] == [row.part for row in plain.encoded]
        assert kept.notes == plain.notes


def test_every_sequence_of_a_row_is_shown(talks: dict[str, Any]) -> None:
    shown = api.show("talks", RunConfig.from_dict(talks), row=2).to_json()
    assert [r["title"] for r in shown["renderings"]] == [f"sequence {n} of 3" for n in (1, 2, 3)]
    learned = ["".join(text for text, is_label, _ in r["pieces"] if is_label) for r in shown["renderings"]]
    assert learned == [
        f"<think>\nI add {turn} to 1.\n</think>\n\nIt is {1 + turn}.<|im_end|>" for turn in range(ANSWERS)
    ]
    limit = shown["renderings"][0]["tokens"]
    cut = api.show("talks", RunConfig.from_dict({**talks, "cutoff_len": limit}), row=2)
    assert [rendering.label_tokens > 0 for rendering in cut.renderings] == [True, False, False]
    assert any(note.code == "overlong-part" for note in cut.notes)


def test_steps_are_counted_by_sequences(talks: dict[str, Any]) -> None:
    facts = api.check("talks", RunConfig.from_dict({**talks, "max_steps": -1})).result.facts
    assert facts["training_rows"] == ROWS - HELD_OUT
    assert facts["steps_per_epoch"] == -(-ANSWERS * (ROWS - HELD_OUT) // 4)
