"""Run folders and checkpoints that were damaged, tampered with, or begun for nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.base.errors import RunError, SartorError
from sartor.base.files import move_to_trash
from sartor.base.locks import file_lock
from sartor.base.rundir import MAX_LINE_BYTES, RunDir
from sartor.training import checkpoint
from sartor.web.run_monitor import RunMonitor
from support.commands import run as command
from support.process_runs import project_settings


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: Path) -> dict[str, Any]:
    return project_settings(
        tmp_path,
        tiny_model_dir,
        longest=1,
        val_size=4,
        max_steps=4,
        save_steps=1,
        output_dir=str(tmp_path / "runs/one"),
    )


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


# --- a start that fails ------------------------------------------------------------------------------------------


def no_template(settings: dict[str, Any]) -> None:
    settings["template"] = "no-such-template"


def unfit_template(settings: dict[str, Any]) -> None:
    settings["template"] = "llama3"


def no_dataset(settings: dict[str, Any]) -> None:
    settings["dataset"] = "smus"


def nothing(settings: dict[str, Any]) -> None:
    del settings["dataset"]


def no_folder(settings: dict[str, Any]) -> None:
    settings["model_name_or_path"] = "/no/such/model"


def no_hub(settings: dict[str, Any]) -> None:
    settings["model_name_or_path"] = "nobody/no-such-model"


def no_weights(settings: dict[str, Any]) -> None:
    copy = Path(settings["dataset_dir"]).parent / "copy"
    shutil.copytree(settings["model_name_or_path"], copy)
    (copy / "model.safetensors").write_bytes(b"\0" * 64)
    settings["model_name_or_path"] = str(copy)


def no_adapter(settings: dict[str, Any]) -> None:
    settings["adapter_name_or_path"] = settings["dataset_dir"]


def no_rows(settings: dict[str, Any]) -> None:
    settings["cutoff_len"] = 8


def no_module(settings: dict[str, Any]) -> None:
    settings["lora_target"] = "no_such_layer"


def no_tracker(settings: dict[str, Any]) -> None:
    settings["report_to"] = "no-such-tracker"


def no_best(settings: dict[str, Any]) -> None:
    settings |= {"load_best_model_at_end": True, "eval_strategy": "no"}


MISTAKES = [
    *(nothing, no_dataset, no_template, unfit_template, no_folder, no_hub, no_weights, no_adapter, no_rows),
    *(no_module, no_tracker, no_best),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
@pytest.mark.parametrize("preflight", [False, True], ids=["", "preflight"])
def test_a_start_that_fails_leaves_nothing(
    settings: dict[str, Any], tmp_path: Path, mistake: Callable[[dict[str, Any]], None], preflight: bool
) -> None:
    wrong = dict(settings)
    mistake(wrong)
    before = everything(tmp_path / "data")
    with pytest.raises(SartorError):
        api.train(**wrong, preflight=preflight)
    assert not (tmp_path / "runs").exists()
    assert everything(tmp_path / "data") == before
    assert not list(tmp_path.glob(".*"))


def test_after_a_failed_start_the_corrected_command_starts(settings: dict[str, Any]) -> None:
    with pytest.raises(SartorError, match="Unknown dataset"):
        api.train(**{**settings, "dataset": "smus"})
    run = api.train(**settings, preflight=True)
    assert run.state == "finished"
    kinds = [event["kind"] for event in run.dir.read_events()]
    assert kinds[:2] == ["preflight", "started"]


def test_train_alone_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("train", f"model_name_or_path={tiny_model_dir}") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_failed_start_touches_neither_files_nor_an_older_run(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(settings["output_dir"])
    api.train(**settings)
    before = everything(folder)
    for given in ({"fresh": True}, {"overwrite_output_dir": True}):
        with pytest.raises(SartorError, match="Unknown dataset"):
            api.train(**{**settings, "dataset": "smus"}, **given)
        assert everything(folder) == before, "the old run goes to the trash for a new one only"
    assert not (folder.parent / ".trash").exists()
    again = api.train(**settings, fresh=True)
    assert again.state == "finished"
    assert [path.name for path in (folder.parent / ".trash").iterdir()] == ["one-1"]


@pytest.mark.parametrize("file", ["thesis.txt", "config.yaml"])
def test_a_folder_of_the_users_own_files_is_no_run(settings: dict[str, Any], file: str) -> None:
    """Also one with a config.yaml, as most projects have one."""
    folder = Path(settings["output_dir"])
    folder.mkdir(parents=True)
    (folder / file).write_text("# mine\ndataset: sums\n", encoding="utf-8")
    before = everything(folder)
    with pytest.raises(RunError, match="not a run"):
        api.train(**settings)
    with pytest.raises(SartorError):
        api.train(**{**settings, "dataset": "smus"})
    assert everything(folder) == before
    assert api.runs(folder.parent) == []


class Killed(BaseException):
    """What ends a process at once."""


@pytest.mark.parametrize("file", ["config.yaml", "data.json", "env.json", "plan.json", "events.jsonl"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_start_killed_while_its_folder_is_made_starts_again(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, file: str, after: bool
) -> None:
    folder, replace = Path(settings["output_dir"]), os.replace

    def killed(source: Any, target: Any) -> None:
        if after and Path(target).name == file:
            replace(source, target)
        if Path(target).name == file:
            raise Killed
        replace(source, target)

    def killed_event(self: RunDir, kind: str, **values: Any) -> dict[str, Any]:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        patch.setattr(RunDir, "event", killed_event)
        with pytest.raises(Killed):
            api.train(**settings)
    assert folder.is_dir()
    assert RunDir(folder).is_planned() == (file == "events.jsonl" or (file == "plan.json" and after))
    assert api.runs(folder.parent) == [] or RunDir(folder).is_planned()
    assert api.train(**settings).state == "finished"
    assert not RunDir(folder).starting.exists()


def test_what_a_killed_trial_left_is_removed_and_what_another_one_uses_is_not(settings: dict[str, Any]) -> None:
    parent = Path(settings["output_dir"]).parent
    for name in (".trial-killed", ".trial-running"):
        (parent / name).mkdir(parents=True)
        (parent / f"{name}.lock").touch()
    with file_lock(parent / ".trial-running"):
        api.train(**settings, preflight=True)
        assert sorted(path.name for path in parent.glob(".trial-*")) == [".trial-running", ".trial-running.lock"]


def test_a_run_that_failed_before_its_first_step_takes_corrected_settings(settings: dict[str, Any]) -> None:
    run = api.train(**settings)
    run.dir.events.unlink()
    for folder in run.dir.checkpoints():
        shutil.rmtree(folder)
    again = api.train(**{**settings, "learning_rate": 2e-2})
    assert again.state == "finished"
    assert again.results["steps"] == 4


# --- a run among others ------------------------------------------------------------------------------------------

LINES: dict[str, bytes] = {
    "no kind": b'{"time": 1.0, "step": 3}\n',
    "a list": b"[1, 2]\n",
    "a number": b"7\n",
    "not JSON": b"Traceback (most recent call last):\n",
    "not UTF-8": b"\xff\xfe\x00\n",
    "nulls": b"\0" * 4096 + b"\n",
    "wrong types": b'{"time": "now", "kind": "step", "step": "three", "loss": []}\n',
    "no loss": b'{"time": 1.0, "kind": "step", "step": 3}\n',
    "a step like no other": b'{"time": 1.0, "kind": "step", "step": 1e999, "loss": 1.0}\n',
    "kind of kind": b'{"time": 1.0, "kind": {"kind": "step"}}\n',
    "deep": b"[" * 200_000 + b"\n",
    "huge": b"x" * (MAX_LINE_BYTES + 10) + b"\n",
}
TORN = b'{"time": 1.0, "kind": "st'


def write_runs(folder: Path) -> tuple[RunDir, RunDir]:
    made = []
    for name in ("good", "bad"):
        run = RunDir(folder / name)
        run.make()
        run.config.write_text("dataset: d\n", encoding="utf-8")
        run.event("started", total_steps=9)
        run.event("step", step=1, loss=2.0)
        run.event("finished")
        made.append(run)
    return made[0], made[1]


@pytest.mark.parametrize("line", LINES.values(), ids=list(LINES))
@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
def test_one_damaged_run_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: bytes, first: bool
) -> None:
    _, bad = write_runs(tmp_path / "runs")
    content = bad.events.read_bytes()
    bad.events.write_bytes(line + content if first else content + line)
    found = {run.name: run for run in api.runs(tmp_path / "runs")}
    assert found["good"].state == "finished"
    assert found["bad"].state == "damaged"
    number = 1 if first else 4
    assert f"events.jsonl, line {number}:" in str(found["bad"].problem)
    assert command("runs", tmp_path / "runs") == 0
    assert "events.jsonl" in capsys.readouterr().out
    assert command("runs", tmp_path / "runs", "--json") == 0
    assert bad.state() == "finished", "whoever works on the run goes on"
    monitor = RunMonitor(bad)
    monitor.refresh()
    assert (monitor.steps, monitor.state()) == ([1], "finished")


def test_a_line_that_a_killed_writer_left_is_no_damage(tmp_path: Path) -> None:
    run, _ = write_runs(tmp_path / "runs")
    content = run.events.read_bytes()
    run.events.write_bytes(content + TORN)
    assert {summary.state for summary in api.runs(tmp_path / "runs")} == {"finished"}
    run.event("finished")
    assert run.events.read_bytes() == content + TORN + b"\n" + run.events.read_bytes().splitlines(True)[-1]
    assert {summary.state for summary in api.runs(tmp_path / "runs")} == {"finished"}


def test_any_damage_to_any_file_of_a_run_hides_no_other(tmp_path: Path, trials: int) -> None:
    _, bad = write_runs(tmp_path / "runs")
    bad.write_json("verdict.json", {"outcome": "better"})
    whole = {name: (bad / name).read_bytes() for name in ("config.yaml", "events.jsonl", "verdict.json")}
    chance = random.Random(11)
    for trial in range(20 * trials):
        name = chance.choice(list(whole))
        content = bytearray(whole[name])
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(content) + 1)
            content[place : place + chance.choice((0, 1, 9))] = chance.randbytes(chance.choice((0, 1, 5)))
        (bad / name).write_bytes(content)
        found = {run.name: run for run in api.runs(tmp_path / "runs")}
        assert found["good"].state == "finished", (trial, name, bytes(content))
        if found["bad"].state == "damaged":
            assert bad.name in str(found["bad"].problem), found["bad"].problem
        (bad / name).write_bytes(whole[name])


@pytest.mark.parametrize("name", ["events.jsonl", "verdict.json", "config.yaml", "plan.json"])
def test_a_folder_where_a_file_should_be(tmp_path: Path, name: str) -> None:
    _, bad = write_runs(tmp_path / "runs")
    (bad / name).unlink(missing_ok=True)
    (bad / name).mkdir()
    found = {run.name: run.state for run in api.runs(tmp_path / "runs")}
    assert found["good"] == "finished"
    if name != "plan.json":
        assert found["bad"] == "damaged"


def test_trash_is_not_listed(tmp_path: Path) -> None:
    good, bad = write_runs(tmp_path / "runs")
    move_to_trash(bad.path)
    assert [run.name for run in api.runs(tmp_path / "runs")] == ["good"]
    assert json.loads((good.events).read_bytes().splitlines()[0])["kind"] == "started"


# --- checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A run with the checkpoints of steps 1, 2 and 3."""
    place = tmp_path_factory.mktemp("trained")
    api.train(**project_settings(place, tiny_model_dir, longest=1, val_size=4, max_steps=4, save_steps=1))
    return place / "one"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunDir:
    shutil.copytree(trained, tmp_path / "one")
    return RunDir(tmp_path / "one")


def no_manifest(folder: Path) -> None:
    (folder / checkpoint.MANIFEST).unlink()


def pipe(folder: Path) -> None:
    no_manifest(folder)
    os.mkfifo(folder / checkpoint.MANIFEST)


def folder_instead(folder: Path) -> None:
    no_manifest(folder)
    (folder / checkpoint.MANIFEST).mkdir()


def linked(folder: Path) -> None:
    (folder / checkpoint.MANIFEST).rename(folder.parent / "elsewhere.json")
    (folder / checkpoint.MANIFEST).symlink_to(folder.parent / "elsewhere.json")


def linked_folder(folder: Path) -> None:
    (folder / "sub").symlink_to(folder.parent)


def manifest(content: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / checkpoint.MANIFEST).write_text(text, encoding="utf-8")

    return write


def listing(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        file = folder / checkpoint.MANIFEST
        files = json.loads(file.read_text(encoding="utf-8"))["files"]
        manifest({"files": {**files, name: {"bytes": 1, "sha256": ""}}})(folder)

    return write


def state(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """The state altered, with a manifest that fits it."""

    def write(folder: Path) -> None:
        file = folder / checkpoint.STATE
        content = json.loads(file.read_text(encoding="utf-8"))
        changed = change(content)
        file.write_text(json.dumps(content if changed is None else changed), encoding="utf-8")
        (folder / checkpoint.MANIFEST).unlink()
        checkpoint._write_manifest(folder)

    return write


def without_state(folder: Path) -> None:
    (folder / checkpoint.STATE).unlink()
    (folder / checkpoint.MANIFEST).unlink()
    checkpoint._write_manifest(folder)


TAMPERED: dict[str, Callable[[Path], None]] = {
    "no manifest": no_manifest,
    "a pipe": pipe,
    "a folder": folder_instead,
    "a link": linked,
    "a linked folder": linked_folder,
    "empty": manifest(""),
    "not JSON": manifest("{"),
    "deep": manifest("[" * 200_000),
    "a list": manifest([1]),
    "a number": manifest("7"),
    "no files": manifest({}),
    "files of nothing": manifest({"files": {}}),
    "files as a list": manifest({"files": []}),
    "files without sizes": manifest({"files": {"config.json": None}}),
    "outside": listing("../../secret"),
    "absolute": listing("/etc/hostname"),
    "through itself": listing("sub/../../../x"),
    "no such file": listing("nothing"),
    "a null in a name": listing("a\0b"),
    "a long name": listing("a" * 5000),
    "no state": without_state,
    "state of a list": state(lambda content: [1]),
    "no progress": state(lambda content: content.pop("progress") and None),
    "progress of another kind": state(lambda content: content["progress"].update(speed=1)),
    "a step of words": state(lambda content: content["progress"].update(step="three")),
    "no schedule": state(lambda content: content.pop("scheduler") and None),
    "no word on resuming": state(lambda content: {k: v for k, v in content.items() if k != "resumable"}),
}


@pytest.mark.parametrize("how", TAMPERED.values(), ids=list(TAMPERED))
def test_a_tampered_checkpoint_is_passed_over_for_the_newest_whole_one(run: RunDir, how: Any) -> None:
    newest, older = run.checkpoints()[:2]
    how(newest)
    found, notes = checkpoint.latest(run)
    assert found == older
    assert [newest.name in str(note) for note in notes] == [True]


def test_any_damage_to_a_manifest_or_state_is_passed_over(run: RunDir, trials: int) -> None:
    newest, older = run.checkpoints()[:2]
    whole = {name: (newest / name).read_bytes() for name in (checkpoint.MANIFEST, checkpoint.STATE)}
    chance = random.Random(7)
    for _ in range(10 * trials):
        name = chance.choice(list(whole))
        content = bytearray(whole[name])
        place = chance.randrange(len(content))
        content[place : place + chance.choice((1, 3))] = chance.randbytes(chance.choice((0, 1, 4)))
        (newest / name).write_bytes(content)
        found, _ = checkpoint.latest(run)
        assert found in (older, newest), bytes(content)
        if name == checkpoint.STATE and bytes(content) != whole[name]:
            assert found == older
        (newest / name).write_bytes(whole[name])
    assert checkpoint.latest(run)[0] == newest


def test_resuming_takes_the_older_one_and_says_so(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.event("interrupted")
    listing("../../secret")(run.checkpoints()[0])
    settings = shutil.copy(run.config, tmp_path / "settings.yaml")
    assert command("train", settings, f"output_dir={run.path}") == 0
    said = capsys.readouterr().err
    assert "not used: checkpoint-3" in said
    assert "resuming after step 2 (checkpoint-2)" in said
