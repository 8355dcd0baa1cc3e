"""RunConfig: strict keys, near names, LLaMA-Factory's files, numbers as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sartor.base import llamafactory_keys, settings
from sartor.base.config import RunConfig, read_config, section_of, to_yaml
from sartor.base.errors import ConfigError
from support.llamafactory_files import LORA_SFT


def test_a_llamafactory_training_file_is_read_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "qwen3_lora_sft.yaml"
    file.write_text(LORA_SFT, encoding="utf-8")
    config = read_config(file, ["learning_rate=2e-4"], dataset_dir="elsewhere")
    assert config.data.dataset == ("identity", "alpaca_en_demo")
    assert config.method.lora_target == ("all",)
    assert config.train.learning_rate == 2e-4
    assert config.train.resume_from_checkpoint is None
    assert config.data.dataset_dir == "elsewhere"
    assert set(config.ignored_keys) == {
        "preprocessing_num_workers",
        "dataloader_num_workers",
        "ddp_timeout",
        "trust_remote_code",
    }


def test_a_prediction_and_an_inference_file_are_read() -> None:
    config = RunConfig.from_dict(
        {"do_predict": True, "predict_with_generate": True, "eval_dataset": "a,b", "infer_backend": "huggingface"}
    )
    assert config.data.eval_dataset == ("a", "b")
    assert "predict_with_generate" in config.ignored_keys


@pytest.mark.parametrize(
    ("settings_asked", "words"),
    [
        ({"learnin_rate": 1e-4}, ["'learnin_rate'", "learning_rate"]),
        ({"lora_r": 8}, ["'lora_r'", "lora_rank"]),
        ({"fp16": True}, ["fp16", "bf16"]),
        ({"lora_rank": "many"}, ["lora_rank", "many"]),
        ({"lora_rank": 0}, ["lora_rank", "0"]),
        ({"stage": "ppo"}, ["stage", "ppo", "sft"]),
        ({"judge_api_key": "sk-123"}, ["judge_api_key", "${MY_KEY}"]),
        ({"stage": "sft", "": 3}, ["''"]),
    ],
)
def test_bad_settings_are_named_with_what_to_write(settings_asked: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(settings_asked)
    for word in words:
        assert word in str(caught.value)


def test_null_means_the_default_and_false_may_be_said_of_a_refused_key() -> None:
    assert RunConfig.from_dict({"lora_rank": None, "fp16": False}).method.lora_rank == 8


@pytest.mark.parametrize("text", ["a: [1", "- a\n- b\n", "a: 1\n  b: 2\n"])
def test_bad_yaml_names_the_place(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        read_config(file)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text("stage: sft\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"sft\.yaml"):
        read_config(tmp_path / "stf.yaml")


def test_the_config_is_frozen_and_written_back_the_same() -> None:
    config = RunConfig.from_dict({"dataset": ["a"], "val_size": 20})
    with pytest.raises(ValidationError):
        config.data.val_size = 3  # type: ignore[misc]
    import yaml

    assert RunConfig.from_dict(yaml.safe_load(to_yaml(config.flat()))).flat() == config.flat()


def test_every_key_is_one_of_three_and_explained() -> None:
    sections = settings.SECTIONS.values()
    names = [name for section in sections for name in section.model_fields]
    assert len(names) == len(set(names)) == len(section_of())
    assert all(field.description for section in sections for field in section.model_fields.values())
    assert not set(names) & set(llamafactory_keys.IGNORED_KEYS)
    assert set(names) & set(llamafactory_keys.UNSUPPORTED_KEYS) == {"fp16"}


def test_a_bare_no_is_the_word_although_yaml_reads_false(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("save_strategy: no\neval_strategy: no\n", encoding="utf-8")
    config = read_config(file, ["save_strategy=no"])
    assert (config.train.save_strategy, config.evaluation.eval_strategy) == ("no", "no")
