"""train: the same command resumes, finishes, refuses or begins anew; the ledger stops a run that loses too much."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sartor import api
from sartor.base.config import read_yaml
from sartor.base.errors import ConfigError, DataError, Interrupted, RunError
from sartor.base.rundir import RunDir


class StopAt:
    """Sends this process a signal after a step, as Ctrl-C does."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.step, self.number = step, number

    def on_event(self, event: Any) -> None:
        if event["kind"] == "step" and event["step"] == self.step:
            signal.raise_signal(self.number)


def weights(run: api.Run) -> dict[str, list[float]]:
    return {name: t.flatten().tolist() for name, t in load_file(run.path / "adapter_model.safetensors").items()}


def steps(run: RunDir) -> list[int]:
    return [event["step"] for event in run.read_events() if event["kind"] == "step"]


def test_a_gbk_csv_with_only_a_name_trains(settings: dict[str, Any]) -> None:
    run = api.train(**settings)
    data = run.dir.read_json("data.json")
    assert (data["ledger"]["read"], data["ledger"]["training"], data["ledger"]["held_out"]) == (40, 32, 8)
    assert not set(data["split"]["train"]) & set(data["split"]["held_out"])
    assert run.state == "finished"
    assert run.results["eval_loss"] > 0
    for name in (
        "config.yaml",
        "plan.json",
        "env.json",
        "events.jsonl",
        "trainer_log.jsonl",
        "train_results.json",
        "all_results.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
    ):
        assert (run.path / name).exists(), name


def test_the_same_settings_give_the_same_bits(settings: dict[str, Any], project: Path) -> None:
    one = api.train(**settings)
    two = api.train(**{**settings, "output_dir": str(project / "runs" / "two")})
    other = api.train(**{**settings, "output_dir": str(project / "runs" / "three"), "seed": 7})
    assert weights(one) == weights(two)
    assert weights(one) != weights(other)


def test_max_steps_ends_inside_an_epoch(settings: dict[str, Any]) -> None:
    assert steps(api.train(**{**settings, "max_steps": 3}).dir) == [1, 2, 3]


def test_a_finished_run_is_reported_and_left_alone(settings: dict[str, Any]) -> None:
    first = api.train(**settings)
    events = first.dir.events.read_bytes()
    again = api.train(**settings)
    assert again.already_finished
    assert first.dir.events.read_bytes() == events
    anew = api.train(**{**settings, "overwrite_output_dir": True})
    assert not anew.already_finished
    assert any((Path(settings["output_dir"]).parent / ".trash").iterdir())


def test_ctrl_c_checkpoints_and_the_same_command_goes_on_to_the_same_bits(
    settings: dict[str, Any], project: Path
) -> None:
    straight = api.train(**{**settings, "output_dir": str(project / "runs" / "straight")})
    with pytest.raises(Interrupted) as stopped:
        api.train(**settings, callbacks=[StopAt(2)])
    assert stopped.value.exit_code == 130
    run = RunDir(Path(settings["output_dir"]))
    assert run.state() == "interrupted"
    assert [p.name for p in run.checkpoints()] == ["checkpoint-2"]
    resumed = api.train(**settings)
    assert steps(resumed.dir) == [1, 2, 3, 4]
    assert weights(resumed) == weights(straight)


def test_other_settings_for_a_begun_run_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(Interrupted):
        api.train(**settings, callbacks=[StopAt(2)])
    with pytest.raises(RunError, match=r"learning_rate: 0\.01 → 0\.02"):
        api.train(**{**settings, "learning_rate": 2e-2})
    fresh = api.train(**{**settings, "learning_rate": 2e-2}, fresh=True)
    assert steps(fresh.dir) == [1, 2, 3, 4]


def test_what_failed_before_its_first_step_may_be_mended(settings: dict[str, Any]) -> None:
    """A mistyped dataset leaves a folder of settings alone: the corrected command begins there."""
    with pytest.raises(DataError, match="Unknown dataset 'chaptrs'"):
        api.train(**{**settings, "dataset": "chaptrs"})
    run = api.train(**settings)
    assert steps(run.dir) == [1, 2, 3, 4]
    assert read_yaml(run.dir.config)["dataset"] == settings["dataset"]
    with pytest.raises(RunError, match="different settings"):
        api.train(**{**settings, "learning_rate": 2e-2})


def test_changed_data_is_refused_on_resume(settings: dict[str, Any], project: Path) -> None:
    with pytest.raises(Interrupted):
        api.train(**settings, callbacks=[StopAt(2)])
    file = project / "data" / "chapters.json"
    file.write_text(file.read_text(encoding="utf-8").replace("数字7。", "数字八。"), encoding="utf-8")
    with pytest.raises(RunError, match="different data"):
        api.train(**settings)


def test_a_folder_of_other_things_is_left_alone(settings: dict[str, Any], project: Path) -> None:
    folder = project / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="not a run"):
        api.train(**settings)
    assert (folder / "thesis.txt").read_text(encoding="utf-8") == "mine"


def spoil(project: Path, count: int) -> None:
    file = project / "data" / "chapters.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    for row in rows[:count]:
        row["conversations"][1]["value"] = " "
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def test_too_many_skipped_rows_stop_the_run_before_a_model_is_loaded(settings: dict[str, Any], project: Path) -> None:
    spoil(project, 3)
    with pytest.raises(DataError, match=r"3 of 40 rows \(7\.5%\) cannot be used; at most 5%"):
        api.train(**settings)
    run = api.train(**{**settings, "max_skipped": 0.1})
    ledger = run.dir.read_json("data.json")["ledger"]
    assert ledger["read"] == ledger["training"] + ledger["held_out"] + len(ledger["skipped"]) == 40
    assert {skipped["row"] for skipped in ledger["skipped"]} == {1, 2, 3}


def test_few_skipped_rows_are_told_and_the_run_goes_on(settings: dict[str, Any], project: Path) -> None:
    spoil(project, 2)
    run = api.train(**settings)
    assert [s["code"] for s in run.dir.read_json("data.json")["ledger"]["skipped"]] == ["turn-empty", "turn-empty"]


def test_overlong_rows_are_skipped_or_cut_as_asked(settings: dict[str, Any], project: Path) -> None:
    settings |= {"cutoff_len": 60, "max_skipped": 40}  # a prompt takes 46 tokens, a row 78
    with pytest.raises(DataError, match="No training rows are left"):
        api.train(**settings)
    run = api.train(**{**settings, "overlong": "truncate", "output_dir": str(project / "runs" / "cut")})
    assert run.dir.read_json("data.json")["ledger"]["training"] == 32


def test_a_template_whose_control_tokens_the_tokenizer_lacks_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"eot_id|start_header_id"):
        api.train(**{**settings, "template": "llama3"})


def test_bad_settings_say_the_nearest(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        api.train(**{**settings, "learnin_rate": 1})
    with pytest.raises(DataError, match="chapters"):
        api.train(**{**settings, "dataset": "chapter"})


def test_rerun_repeats_a_run_and_refuses_changed_data(settings: dict[str, Any], project: Path) -> None:
    run = api.train(**settings)
    again = api.rerun(run.path)
    assert again.path.name == "one-rerun"
    assert weights(again) == weights(run)
    spoil(project, 1)
    with pytest.raises(RunError, match="changed"):
        api.rerun(run.path, output_dir=project / "runs" / "third")


def test_runs_are_listed_with_their_state(settings: dict[str, Any], project: Path) -> None:
    api.train(**settings)
    with pytest.raises(Interrupted):
        api.train(**{**settings, "output_dir": str(project / "runs" / "two")}, callbacks=[StopAt(1)])
    found = {run.name: (run.state, run.step, run.data) for run in api.runs(project / "runs")}
    assert found == {"one": ("finished", 4, "chapters"), "two": ("interrupted", 1, "chapters")}


def test_llama_factorys_blank_system_and_tools_train(settings: dict[str, Any], project: Path) -> None:
    turns = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Darcy."}]
    rows = [{"conversations": turns, "system": " ", "tools": " "} for _ in range(12)]
    (project / "data" / "pride_conversations.json").write_text(json.dumps(rows), encoding="utf-8")
    entry = {
        "file_name": "pride_conversations.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "system": "system", "tools": "tools"},
    }
    info = project / "data" / "dataset_info.json"
    info.write_text(json.dumps({"pride": entry}), encoding="utf-8")
    run = api.train(**{**settings, "dataset": "pride", "val_size": 2})
    assert run.state == "finished"
    assert run.dir.read_json("data.json")["ledger"]["skipped"] == []


def test_a_saved_split_is_used_and_named(settings: dict[str, Any], project: Path) -> None:
    saved = api.split("chapters", dataset_dir=project / "data", val_size=5, seed=3)
    split = api.train(**settings).dir.read_json("data.json")["split"]
    assert split["saved"] == {"chapters": "seed"}
    assert split["held_out"] == list(saved.saved.held_out)
