"""A dataset whose file lies outside its folder: every command that reads it refuses, and takes --allow-outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sartor.cli import main


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main(words)
    captured = capsys.readouterr()
    return int(left.value.code or 0), captured.out + captured.err


def test_each_command_asks_for_the_same_permission(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": f"Question {n}?", "output": f"Answer {n}."} for n in range(20)]
    (tmp_path / "outside.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text('{"far": {"file_name": "../outside.json"}}', encoding="utf-8")
    model, run = f"model_name_or_path={tiny_model_dir}", "runs/far"
    settings = [
        model,
        "dataset=far",
        "val_size=4",
        f"output_dir={run}",
        "max_steps=1",
        "dtype=float32",
        "use_cpu=true",
        "plot_loss=false",
    ]
    for words in (
        ["show", "far", model],
        ["check", "far", model],
        ["split", "far"],
        ["estimate", *settings],
        ["train", *settings, "--no-preflight"],
        ["predict", run, "max_new_tokens=2"],
        ["compare", run, "max_new_tokens=2", "forgetting_probe=false"],
        ["compare", "base", run, "max_new_tokens=2"],
    ):
        code, text = said([*words, "--allow-scripts", "--allow-network"], capsys)
        assert code == 1, words
        assert "outside" in text, (words, text)
        code, text = said([*words, "--allow-outside"], capsys)
        assert code == 0, (words, text)
