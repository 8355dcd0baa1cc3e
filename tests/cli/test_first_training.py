"""`sartor train` without a settings file visibly learns and holds rows out, says so, and says it again in the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.commands import run

SAID = "Sartor's defaults for a first training: lora_rank=16 val_size=0.1 cutoff_len=1024 learning_rate=0.0005"


@pytest.fixture
def words(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings for a training of one step on ten rows, and a file with one row."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data", sums=10, one=1)
    return [f"model_name_or_path={tiny_model_dir}", "max_steps=1", "use_cpu=true", "plot_loss=false"]


def write_data(folder: Path, **rows: int) -> None:
    folder.mkdir()
    for name, count in rows.items():
        content = [{"instruction": f"{i} and 1?", "output": f"{i + 1}."} for i in range(count)]
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    entries = {name: {"file_name": f"{name}.json"} for name in rows}
    (folder / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")


def read(file: str) -> Any:
    return json.loads(Path(file).read_text(encoding="utf-8"))


def test_ten_rows_are_trained_on_with_one_held_out(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "dataset=sums", *words, "output_dir=runs/a"]
    assert run(*train) == 0
    shown = capsys.readouterr()
    assert "10 rows read = 9 training + 1 held out + 0 skipped" in shown.err
    assert SAID in shown.err
    plan, settings = read("runs/a/plan.json"), yaml.safe_load(Path("runs/a/config.yaml").read_text(encoding="utf-8"))
    assert plan["defaults"].items() <= settings.items()
    assert "first training" in plan["reasons"]["defaults"]["message"]
    assert run(*train) == 0
    assert "already finished" in capsys.readouterr().out
    assert run("train", "runs/a", "output_dir=runs/b") == 0
    shown = capsys.readouterr()
    assert "9 training + 1 held out" in shown.err
    assert "Sartor's defaults" not in shown.err


def test_a_settings_file_keeps_llama_factorys_defaults(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("sft.yaml").write_text("dataset: sums\n", encoding="utf-8")
    assert run("train", "sft.yaml", *words, "output_dir=runs/a") == 0
    assert "10 rows read = 10 training + 0 skipped" in (shown := capsys.readouterr().err)
    assert "Sartor's defaults" not in shown
    assert read("runs/a/plan.json")["defaults"] == {}
    assert run("train", "dataset=sums", *words, "output_dir=runs/a") == 0
    assert "already finished" in capsys.readouterr().out


def test_a_single_row_is_trained_on(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "dataset=one", *words, "output_dir=runs/a") == 0
    shown = capsys.readouterr()
    assert "1 row read = 1 training + 0 skipped" in shown.err
    assert "sartor chat runs/a" in shown.out


def test_the_next_command_needs_no_settings_of_its_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    model = words[0]
    assert run("show", "sums", model) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"train dataset=sums {model}")
    assert run("check", "sums", model, "finetuning_type=full") == 0
    assert capsys.readouterr().out.rstrip().endswith("num_train_epochs=4 learning_rate=0.0005 val_size=0.1")


def test_check_counts_as_too_long_what_train_would_skip(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    long = [{"instruction": "Count.", "output": "7" * 1500}, *read("data/sums.json")]
    Path("data/sums.json").write_text(json.dumps(long), encoding="utf-8")
    assert run("check", "sums", words[0]) == 1
    assert "cutoff_len is 1024" in capsys.readouterr().out
    Path("sft.yaml").write_text("cutoff_len: 2048\n", encoding="utf-8")
    assert run("check", "sums", "sft.yaml", words[0]) == 0


@pytest.mark.parametrize("command", ["check", "show"])
def test_the_dataset_folder_is_a_setting_too(
    words: list[str], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    write_data(Path("other"), more=3)
    Path("sft.yaml").write_text("dataset_dir: other\n", encoding="utf-8")
    for given in (["dataset_dir=other"], ["--dataset-dir", "other"], ["dataset_dir=data", "--dataset-dir", "other"]):
        assert run(command, "more", words[0], *given) == 0
        assert capsys.readouterr().out.rstrip().endswith(f"train dataset=more {words[0]} dataset_dir=other")
    assert run(command, "more", "sft.yaml", words[0]) == 0
    assert f"train sft.yaml dataset=more {words[0]}" in capsys.readouterr().out
