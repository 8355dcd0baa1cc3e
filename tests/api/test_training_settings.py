"""What is typed without a file trains with the values that the page begins with; files keep LLaMA-Factory's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.api.open_run import create_run
from sartor.base.config import RunConfig
from sartor.base.rundir import RunDir
from sartor.base.settings import FIRST_TRAINING

EXPECTED = {
    "lora_rank": 16,
    "val_size": 0.1,
    "cutoff_len": 1024,
    "learning_rate": 5e-4,
    "num_train_epochs": 4.0,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "save_steps": 50,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(config: RunConfig) -> dict[str, Any]:
    """The settings that are not LLaMA-Factory's defaults."""
    before = RunConfig().flat()
    return {key: value for key, value in config.flat().items() if value != before[key] and key != "dataset"}


def test_what_is_typed_stands_on_the_values_of_a_first_training() -> None:
    config = api.training_settings(None, ["dataset=sums"])
    assert changed(config) == config.defaults == EXPECTED
    assert config.flat() == RunConfig.from_dict({**FIRST_TRAINING, "dataset": ["sums"]}).flat()
    assert config.given == {"dataset": "sums", **EXPECTED}


def test_what_was_given_stays_also_where_it_was_unset() -> None:
    config = api.training_settings(None, ["val_size=0", "lora_rank=8"], learning_rate=1e-4)
    assert (config.data.val_size, config.method.lora_rank, config.train.learning_rate) == (0, 8, 1e-4)
    assert api.training_settings(None, ["val_size="]).data.val_size == 0
    assert not {"val_size", "lora_rank", "learning_rate"} & config.defaults.keys()


@pytest.mark.parametrize(
    ("word", "left_out"),
    [
        ("eval_dataset=other", "val_size"),
        ("streaming=true", "val_size"),
        ("max_steps=7", "num_train_epochs"),
        ("warmup_steps=3", "warmup_ratio"),
        ("adapter_name_or_path=runs/a", "lora_rank"),
    ],
)
def test_a_default_makes_way_for_the_setting_that_takes_its_place(word: str, left_out: str) -> None:
    defaults = api.training_settings(None, ["dataset=sums", word]).defaults
    assert defaults == {key: value for key, value in EXPECTED.items() if key != left_out}
    nothing = api.training_settings(None, ["streaming=false", "eval_dataset=", "max_steps=-1", "warmup_steps=0"])
    assert nothing.defaults == EXPECTED


@pytest.mark.parametrize("word", ["stage=dpo", "stage=pt", "finetuning_type=full", "finetuning_type=freeze"])
def test_other_stages_and_methods_keep_their_own(word: str) -> None:
    config = api.training_settings(None, ["dataset=sums", word])
    assert config.defaults == {}
    assert len(changed(config)) == 1


def test_a_file_and_a_config_keep_llama_factorys(here: Path) -> None:
    (here / "sft.yaml").write_text("dataset: sums\n", encoding="utf-8")
    given = RunConfig.from_dict({"dataset": "sums"})
    for config in (api.training_settings("sft.yaml", ["seed=1"]), api.training_settings(given, seed=1)):
        assert config.defaults == {}
        assert changed(config) == {"seed": 1}


@pytest.mark.parametrize("by", ["file", "older version"])
def test_a_run_that_goes_on_keeps_the_defaults_that_it_began_with(here: Path, by: str) -> None:
    """The same words once stood on other defaults: they still resume that run."""
    run = RunDir(here / "runs" / "a")
    create_run(run, RunConfig.from_dict({"dataset": "sums", "lora_rank": 16}), by)
    run.write_json("plan.json", {})
    words = ["dataset=sums", "output_dir=runs/a"]
    config = api.training_settings(None, words)
    assert config.defaults == {"lora_rank": 16}
    assert config.data.val_size == 0
    assert api.training_settings(None, words, fresh=True).defaults == EXPECTED


def test_the_settings_of_a_run_say_all_that_it_trained_with(here: Path) -> None:
    run = RunDir(here / "runs" / "a")
    config = api.training_settings(None, ["dataset=sums"])
    create_run(run, config, None)
    assert api.training_settings(run.path).flat() == config.flat()
