"""A run that cannot be lost: kill -9 at any moment, signals, a full disk, damage, poison, no memory, hostile files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sartor import api
from sartor.base.errors import ModelError, RunError, SartorError
from sartor.base.rundir import RunDir, read_json_lines
from sartor.base.settings import ModelSettings
from sartor.model.load import load_adapter, load_model, load_tokenizer
from sartor.training import checkpoint
from support.process_runs import project_settings
from support.training_runs import Shortage, config_of, events, rows, run_training, trained

SERVER = """
import json, os, resource, sys
from sartor import api, cli
import sartor.training.loop, sartor.model.load, sartor.inference.engine, transformers, peft, accelerate
from transformers import AutoModelForCausalLM, AutoTokenizer
import transformers.models.llama.modeling_llama, peft.tuners.lora
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        out = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1), os.dup2(out, 2)
        if job.get("limit"):
            import signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
        code = 99
        try:
            cli.main(["train", *job["words"]])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Imports once, then forks a process for each line: a kill costs a second, not the ten of a start from nothing."""


class Server:
    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            encoding="utf-8",
        )

    def start(self, settings: dict[str, Any], limit: int | None = None) -> int:
        assert self.process.stdin
        assert self.process.stdout
        words = [f"{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in settings.items()]
        self.process.stdin.write(json.dumps({"words": words, "log": str(self.log), "limit": limit}) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def exit_code(self) -> int:
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def finish(self, settings: dict[str, Any]) -> str:
        """Run to the end, and what the final weights hash to."""
        self.start(settings)
        assert self.exit_code() == 0, self.log.read_text(encoding="utf-8")[-3000:]
        return final_hash(Path(settings["output_dir"]))


def final_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: Path) -> dict[str, Any]:
    return project_settings(
        tmp_path,
        tiny_model_dir,
        rows=24,
        longest=1,
        val_size=4,
        max_steps=16,
        lora_dropout=0.1,
        save_steps=2,
        save_total_limit=2,
        output_dir=str(tmp_path / "straight"),
    )


def losses_of(folder: Path) -> list[tuple[int, float]]:
    return [(event["step"], event["loss"]) for event in events(folder, "step")]


def wait_for(what: Any, pid: int) -> None:
    """Until it is true or the process has ended; pytest's own limit is for hangs."""
    while not what() and Path(f"/proc/{pid}").exists():
        time.sleep(0.0005)


@pytest.mark.real
def test_killed_at_any_moment_it_resumes_to_the_same_bits(
    server: Server, settings: dict[str, Any], tmp_path: Path, trials: int
) -> None:
    """Half of the kills inside a save: while a `.checkpoint-*.part` folder stands."""
    straight = server.finish(settings)
    started = time.monotonic()
    server.finish({**settings, "output_dir": str(tmp_path / "timed")})
    usual = time.monotonic() - started
    chance, in_save = random.Random(5), 0
    for trial in range(trials):
        folder = tmp_path / f"trial-{trial}"
        asked = {**settings, "output_dir": str(folder)}
        for _ in range(chance.choice((1, 1, 2))):
            pid = server.start(asked)
            if trial % 2:
                nth = chance.randrange(1, 8)
                wait_for(lambda: list(folder.glob(f".checkpoint-{2 * nth}.part")), pid)  # noqa: B023
                time.sleep(chance.uniform(0, 0.01) if trial > 1 else 0)  # the first one must not come too late
                in_save += bool(list(folder.glob(".checkpoint-*.part")))
            else:
                time.sleep(chance.uniform(0, usual))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            assert server.exit_code() in (-9, 0)
        assert server.finish(asked) == straight, f"trial {trial}"
        assert losses_of(folder) == losses_of(tmp_path / "straight")
        assert RunDir(folder).state() == "finished"
        assert not list(folder.glob(".*part"))
        shutil.rmtree(folder)
    print(f"{trials} trials, {in_save} kills inside a save")
    assert in_save or trials < 2


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_checkpoints_and_gives_its_exit_code(
    server: Server, settings: dict[str, Any], tmp_path: Path, number: int
) -> None:
    settings |= {"max_steps": 400, "save_strategy": "no"}
    folder = Path(settings["output_dir"])
    pid = server.start(settings)
    wait_for(lambda: len(events(folder, "step")) > 3, pid)
    os.kill(pid, number)
    assert server.exit_code() == 128 + number
    run = RunDir(folder)
    assert run.state() == "interrupted"
    (saved,) = run.checkpoints()
    assert checkpoint.verify(saved) is None
    assert int(saved.name.rpartition("-")[2]) == losses_of(folder)[-1][0]


@pytest.mark.real
def test_a_full_disk_is_a_clear_error_and_the_checkpoint_before_is_intact(
    server: Server, settings: dict[str, Any], tmp_path: Path
) -> None:
    """No file may become as large as the optimizer's: the save after the resumption fails half-way."""
    straight = server.finish(settings)
    folder = tmp_path / "full"
    asked = {**settings, "output_dir": str(folder)}
    pid = server.start(asked)
    wait_for(lambda: (folder / "checkpoint-4").exists(), pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    server.exit_code()
    before, _ = checkpoint.latest(RunDir(folder))
    assert before is not None
    server.start(asked, limit=(before / "optimizer.safetensors").stat().st_size - 1)
    assert server.exit_code() == 1
    assert "File too large" in server.log.read_text(encoding="utf-8")[-600:]
    assert checkpoint.latest(RunDir(folder))[0] == before
    assert server.finish(asked) == straight


def test_any_flipped_bit_and_any_cut_is_seen(tmp_path: Path, tiny_model: Any, trials: int) -> None:
    run_training(tmp_path, tiny_model, config_of(save_strategy="steps", save_steps=2), rows(9))
    run, chance = RunDir(tmp_path), random.Random(7)
    newest, older = run.checkpoints()[:2]
    for file in sorted(newest.iterdir()):
        whole = file.read_bytes()
        for _ in range(trials):
            damaged, place = bytearray(whole), chance.randrange(len(whole))
            damaged[place] ^= 1 << chance.randrange(8)
            for content in (bytes(damaged), whole[:place]):
                file.write_bytes(content)
                assert checkpoint.latest(run)[0] == older, (file.name, place, len(content) == len(whole))
        file.write_bytes(whole)
    assert checkpoint.latest(run) == (newest, [])


def test_a_poisoned_row_is_skipped_by_name_and_leaves_no_trace(tmp_path: Path, tiny_model: Any) -> None:
    """A token whose embedding is no number stands in one row: two of four epochs' steps are lost, the weights stay."""
    data = rows(12)
    data[5].ids[:] = 200
    for row in (*data[:5], *data[6:]):
        row.ids[row.ids == 200] = 201
    with torch.no_grad():
        tiny_model.model.embed_tokens.weight[200] = float("nan")
        tiny_model.lm_head.weight = torch.nn.Parameter(tiny_model.model.embed_tokens.weight.nan_to_num(0))
    model = run_training(tmp_path, tiny_model, config_of(num_train_epochs=2.0), data)
    skipped = events(tmp_path, "skipped_step")
    assert len(skipped) == 2
    assert all(data[5].origin.id in event["rows"] for event in skipped)  # type: ignore[union-attr]
    assert torch.isfinite(trained(model)).all()
    with pytest.raises(RunError, match="NaN or infinite"):
        run_training(tmp_path / "long", model, config_of(num_train_epochs=4.0, finetuning_type="full"), data)


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_out_of_memory_halves_micro_batches_and_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    from sartor.training.stages import sft
    from support.tiny import make_model

    config = config_of(lora_rank=4, per_device_train_batch_size=8)
    straight = run_training(tmp_path / "a", make_model(), config, rows(16))
    shortage = Shortage(2, error)
    monkeypatch.setattr(sft, "summed_loss", shortage)
    short = run_training(tmp_path / "b", make_model(), config, rows(16))
    assert shortage.seen == 2
    assert [(e["step"], e["micro_divisor"]) for e in events(tmp_path / "b", "oom")] == [(1, 2), (1, 4)]
    torch.testing.assert_close(trained(short), trained(straight), rtol=1e-3, atol=1e-5)
    noisy = config_of(lora_rank=4, per_device_train_batch_size=8, lora_dropout=0.2)
    short = run_training(tmp_path / "noisy", make_model(), noisy, rows(16))
    monkeypatch.setattr(sft, "summed_loss", shortage.real)
    replayed = run_training(tmp_path / "c", make_model(), noisy, rows(16), replay={1: 4})
    assert torch.equal(trained(replayed), trained(short))
    monkeypatch.setattr(sft, "summed_loss", Shortage(0, error))
    with pytest.raises(RunError, match="one row at a time"):
        run_training(tmp_path / "d", make_model(), config, rows(16))


# --- hostile files -----------------------------------------------------------------------------------------------


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def trap(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Trap(mark)))
    pickle.loads(path.read_bytes())  # noqa: S301 - it does work
    mark.unlink()


@pytest.fixture
def hostile(tmp_path: Path, tiny_model_dir: Path) -> Path:
    folder = tmp_path / "hostile"
    shutil.copytree(tiny_model_dir, folder)
    return folder


def refuse(folder: Path, what: str) -> None:
    settings = ModelSettings(model_name_or_path=str(folder), use_cpu=True)
    with pytest.raises(SartorError, match=what):
        load_model(settings)


def edit(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**content, **values}), encoding="utf-8")


def test_a_pickle_in_place_of_safetensors_never_runs(hostile: Path, tmp_path: Path) -> None:
    trap(hostile / "model.safetensors", tmp_path / "ran")
    refuse(hostile, "Could not load the model")
    (hostile / "model.safetensors").rename(hostile / "pytorch_model.bin")
    refuse(hostile, "Could not load the model")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/etc/hostname", "part/evil.safetensors", "missing.safetensors"]
)
def test_an_index_that_leads_outside_is_refused(hostile: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "evil.safetensors").write_bytes((hostile / "model.safetensors").read_bytes())
    (hostile / "model.safetensors").unlink()
    edit(hostile / "model.safetensors.index.json", weight_map={"lm_head.weight": name}, metadata={})
    refuse(hostile, "which is not in the folder")


@pytest.mark.parametrize("name", ["pipe.safetensors", "config.json", "tokenizer.json"])
def test_a_pipe_hangs_nothing(hostile: Path, name: str) -> None:
    (hostile / name).unlink(missing_ok=True)
    os.mkfifo(hostile / name)
    refuse(hostile, r"(not a regular file|no model)")
    with pytest.raises(ModelError):
        load_tokenizer(str(hostile))


@pytest.mark.parametrize("kind", ["llama", "strange"])
def test_code_named_by_a_config_never_runs(hostile: Path, tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "ran"
    (hostile / "modeling.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass M: pass\n", "utf-8"
    )
    names = {"AutoConfig": "modeling.M", "AutoModelForCausalLM": "modeling.M"}
    edit(hostile / "config.json", auto_map=names, model_type=kind)
    if kind == "strange":
        refuse(hostile, "Could not load the model")
    else:
        load_model(ModelSettings(model_name_or_path=str(hostile), use_cpu=True))
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["llama\nimport os", "../llama", 5])
def test_an_impossible_model_type_is_refused(hostile: Path, kind: Any) -> None:
    edit(hostile / "config.json", model_type=kind)
    refuse(hostile, "Invalid model_type")


def test_hostile_adapters_and_checkpoints_never_run(tmp_path: Path, tiny_model: Any) -> None:
    from support.tiny import make_model

    run_training(tmp_path / "run", tiny_model, config_of(save_strategy="steps", save_steps=2, lora_rank=4), rows(9))
    run, mark = RunDir(tmp_path / "run"), tmp_path / "ran"
    folder = run.checkpoints()[0]
    for name in ("adapter_model.safetensors", "optimizer.safetensors", "random.safetensors"):
        copy = tmp_path / "copy" / folder.name
        shutil.copytree(folder, copy)
        trap(copy / name, mark)
        (copy / checkpoint.MANIFEST).unlink()
        checkpoint._write_manifest(copy)  # the attacker's manifest fits
        with pytest.raises(SartorError, match=r"Could not read|do(es)? not fit"):
            run_training(tmp_path / "other", make_model(), config_of(lora_rank=4), rows(9), resume=copy)
        shutil.rmtree(copy)
    trap(folder / "adapter_model.safetensors", mark)
    with pytest.raises(ModelError, match="damaged"):
        load_adapter(make_model(), folder)
    edit(folder / "adapter_config.json", megatron_config={"a": 1}, megatron_core="trap")
    with pytest.raises(ModelError, match=r"megatron_config"):
        load_adapter(make_model(), folder)
    assert not mark.exists()


def test_a_manifest_that_leads_outside_is_refused(tmp_path: Path, tiny_model: Any) -> None:
    run_training(tmp_path, tiny_model, config_of(save_strategy="steps", save_steps=2), rows(9))
    newest, older = RunDir(tmp_path).checkpoints()[:2]
    manifest = newest / checkpoint.MANIFEST
    content = json.loads(manifest.read_text(encoding="utf-8"))
    for name in ("../secret", "/etc/hostname"):
        edit(manifest, files={**content["files"], name: {"bytes": 1, "sha256": ""}})
        assert "leads out" in str(checkpoint.verify(newest))
        assert checkpoint.latest(RunDir(tmp_path))[0] == older


def test_states_are_listed_for_people(settings: dict[str, Any], tmp_path: Path) -> None:
    api.train(**{**settings, "max_steps": 2})
    assert [run.state for run in api.runs(tmp_path) if run.name == "straight"] == ["finished"]
    assert list(read_json_lines(tmp_path / "straight" / "trainer_log.jsonl"))[-1]["current_steps"] == 2
