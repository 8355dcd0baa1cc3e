"""`sartor estimate` says what a training will take and trains nothing; `sartor train` says it first, then what was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.commands import run


def test_estimate_then_train_with_and_without_it(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    rows = [{"instruction": f"{i} and 1?", "output": f"{i + 1}."} for i in range(12)]
    (tmp_path / "data" / "sums.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "data" / "dataset_info.json").write_text('{"sums": {"file_name": "sums.json"}}', encoding="utf-8")
    settings = [
        f"model_name_or_path={tiny_model_dir}",
        "dataset=sums",
        "max_steps=3",
        "use_cpu=true",
        "dtype=float32",
        "plot_loss=false",
        "output_dir=runs/one",
    ]
    assert run("estimate", *settings) == 0
    shown = capsys.readouterr().out
    for words in ("pre-flight  3 steps", "11 rows are few", "val_size=0.1", "Sartor's defaults for a first training"):
        assert words in shown
    settings.append("val_size=0")
    assert run("estimate", *settings) == 0
    shown = capsys.readouterr().out
    for words in ("pre-flight  3 steps", "12 rows are few", "No rows are held out", "global_batch"):
        assert words in shown
    assert not (tmp_path / "runs").exists()
    assert run("estimate", *settings, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["estimate"]["total_steps"] == found["plan"]["total_steps"] == 3
    assert run("train", *settings) == 0
    told = capsys.readouterr()
    assert "pre-flight" in told.err
    assert "predicted memory" in told.out
    assert run("train", *settings, "output_dir=runs/two", "--no-preflight") == 0
    told = capsys.readouterr()
    assert "pre-flight" not in told.err
    assert "predicted" not in told.out
