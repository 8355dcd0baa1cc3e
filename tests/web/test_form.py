"""The form is drawn from the schema, says the same as the YAML and the command line, and lets nothing dangerous by."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import pytest

from sartor import api
from sartor.base.config import RunConfig, section_of, to_yaml
from sartor.base.errors import ConfigError
from sartor.base.settings import FIRST_TRAINING
from sartor.web.form import COMMON, HIDDEN, check_paths, command, fields, free_name, parse_yaml, shown, typed
from sartor.web.workspace import Workspace


def test_every_setting_is_drawn_once() -> None:
    keys = [field.key for field in fields()]
    assert sorted([*keys, *HIDDEN]) == sorted(section_of())
    assert set(COMMON) <= set(keys)
    assert all(field.description for field in fields())


def test_choices_are_those_of_the_schema() -> None:
    by_key = {field.key: field.choices for field in fields()}
    assert by_key["finetuning_type"] == ("lora", "full", "freeze")
    assert by_key["quantization_bit"] == (None, 4, 8)
    assert by_key["bf16"] == (None, True, False)
    assert by_key["learning_rate"] is None
    assert by_key["dataset"] is None


def test_the_form_opens_with_settings_that_hold() -> None:
    assert RunConfig.from_dict({**FIRST_TRAINING, "dataset": "x"}).method.lora_rank == 16


@pytest.mark.parametrize("value", [1e-4, 5e-5, 3, True, "cosine", ["a", "b"], None, 1e-8])
def test_what_is_shown_reads_back(value: object) -> None:
    assert typed(shown(value)) in (value, ", ".join(value) if isinstance(value, list) else value, str(value))


def test_the_command_line_says_the_same() -> None:
    asked = {"dataset": ["a", "b"], "learning_rate": 1e-4, "bf16": True, "output_dir": "runs/my run", "stop": "a'b"}
    words = shlex.split(command({k: v for k, v in asked.items() if k != "stop"}))
    assert words[:2] == ["sartor", "train"]
    again = api.training_settings(None, words[2:])
    assert again.flat() == RunConfig.from_dict({k: v for k, v in asked.items() if k != "stop"}).flat()
    assert again.defaults == {}
    assert "val_size" not in command({"dataset": "a", "eval_dataset": "b"})
    assert command({"dataset": "a", "lora_rank": "many"}) == "sartor train dataset=a lora_rank=many"


def test_broken_yaml_is_named_by_its_place() -> None:
    with pytest.raises(ConfigError) as error:
        parse_yaml("a: 1\nb: [")
    assert "line 2" in str(error.value.where) or "line 3" in str(error.value.where)
    assert parse_yaml("") == {}
    with pytest.raises(ConfigError):
        parse_yaml("- a")


def test_a_small_file_that_stands_for_a_huge_one_is_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise("abcdefghij")]
    with pytest.raises(ConfigError, match="aliases"):
        parse_yaml("\n".join(lines))
    with pytest.raises(ConfigError, match="too long"):
        parse_yaml("a: " + "x" * 300_000)


@pytest.mark.parametrize(
    "settings",
    [
        {"trust_remote_code": True},
        {"dataset_dir": "/etc"},
        {"dataset_dir": "../x"},
        {"output_dir": "/tmp/x"},
        {"output_dir": "runs/../../x"},
        {"output_dir": "data"},
        {"output_dir": "runs/.trash"},
        {"model_name_or_path": "/etc"},
        {"model_name_or_path": "../models/m"},
        {"adapter_name_or_path": "/etc"},
        {"ref_model": "/etc"},
        {"deepspeed": "/etc/x.json"},
        {"export_dir": "/tmp/x"},
        {"model_name_or_path": "~/m"},
        {"judge_labels": "/etc/passwd"},
    ],
    ids=str,
)
def test_the_page_lets_nothing_out_of_the_folder(tmp_path: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        check_paths(Workspace(tmp_path), RunConfig.from_dict(settings))


CODE = [
    {"metrics": "mine.py"},
    {"metrics": "rouge-l, data/mine.PY "},
    {"metrics": ["all", "runs/a/mine.py"]},
    {"primary_metric": "mine.py"},
    {"metrics": "/tmp/x.py"},
    {"trust_remote_code": True},
    {"judge_api_key": "${HOME_SECRET}"},
]


@pytest.mark.parametrize("settings", CODE, ids=str)
def test_no_python_file_and_no_secret_comes_in_by_settings(tmp_path: Path, settings: dict[str, object]) -> None:
    """By the form, the YAML beside it and a file that is loaded alike: all end in `allow` before anything starts."""
    (tmp_path / "mine.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    text = to_yaml({"dataset": "d", **settings})
    for asked in (settings, parse_yaml(text)):
        with pytest.raises(ConfigError, match="cannot be used on the page"):
            check_paths(Workspace(tmp_path), RunConfig.from_dict(asked))


@pytest.mark.parametrize("key", ["allow_scripts", "allow_script", "allow_outside", "allow_remote_code"])
def test_permissions_are_no_settings_at_all(key: str) -> None:
    with pytest.raises(ConfigError):
        RunConfig.from_dict(parse_yaml(f"dataset: d\n{key}: true\n"))


def test_builtin_metrics_are_allowed(tmp_path: Path) -> None:
    check_paths(Workspace(tmp_path), RunConfig.from_dict({"metrics": "all"}))
    check_paths(
        Workspace(tmp_path), RunConfig.from_dict({"metrics": ["rouge-l.char", "chrf"], "primary_metric": "bleu-4"})
    )


def test_what_lies_in_the_folders_is_allowed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace", (tmp_path / "models",))
    for settings in (
        {"model_name_or_path": "org/name", "dataset_dir": "data", "output_dir": "runs/a"},
        {"model_name_or_path": str(tmp_path / "models" / "m")},
        {"adapter_name_or_path": "runs/a"},
    ):
        check_paths(workspace, RunConfig.from_dict(settings))


def test_a_new_run_gets_a_name_of_its_own(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert free_name(workspace, "pride") == "runs/pride"
    (tmp_path / "runs" / "pride").mkdir(parents=True)
    assert free_name(workspace, "pride") == "runs/pride-2"
