"""Where every row of a run went: a row that is trained on is never called held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sartor.api.prepare_data import data_json, make_encoder, prepare_rows
from sartor.base.config import RunConfig
from sartor.base.rundir import RunDir


def test_rows_that_are_trained_on_are_never_called_held_out(project: Path, settings: dict[str, Any]) -> None:
    config = RunConfig.from_dict({**settings, "val_size": 0, "eval_dataset": "chapters"})
    encoder = make_encoder(config)
    rows = prepare_rows(config, encoder)
    assert (rows.ledger.read, rows.ledger.training, rows.ledger.held_out) == (40, 40, 0)
    assert rows.ledger.balanced
    assert [note.code for note in rows.ledger.notes if note.code == "eval-trained"] == ["eval-trained"]
    assert data_json(rows, config, encoder, RunDir(project / "runs" / "one"))["split"]["held_out"] == []
    apart = prepare_rows(RunConfig.from_dict(settings), encoder)
    assert (apart.ledger.training, apart.ledger.held_out, apart.ledger.balanced) == (32, 8, True)
