"""The pre-flight changes nothing, predicts what happens, steps down its ladder, and refuses what cannot fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sartor import api
from sartor.base.config import RunConfig
from sartor.base.errors import RunError
from sartor.base.rundir import RunDir
from sartor.model.load import adapt, save_weights
from sartor.training import preflight
from sartor.training.job import TrainingJob
from sartor.training.memory import OutOfMemory, PeakMemory
from sartor.training.preflight import advise
from support.process_runs import project_settings
from support.training_runs import config_of, plan_of, rows


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: Path) -> dict[str, Any]:
    return project_settings(
        tmp_path,
        tiny_model_dir,
        rows=40,
        longest=3,
        val_size=4,
        max_steps=12,
        lora_dropout=0.1,
        save_steps=4,
        output_dir=str(tmp_path / "runs" / "one"),
    )


@pytest.mark.parametrize(
    "method",
    [
        {},
        pytest.param({"finetuning_type": "full", "weight_decay": 0.1}, marks=pytest.mark.real),
        pytest.param({"optim": "muon"}, marks=pytest.mark.real),
    ],
)
def test_a_run_with_pre_flight_is_the_run_without_it(
    settings: dict[str, Any], tmp_path: Path, method: dict[str, Any]
) -> None:
    plain = api.train(**settings, **method)
    flown = api.train(**{**settings, **method, "output_dir": str(tmp_path / "runs" / "two")}, preflight=True)
    name = "model.safetensors" if method.get("finetuning_type") else "adapter_model.safetensors"
    one, two = (load_file(run.path / name) for run in (plain, flown))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert plain.estimate is None
    assert flown.estimate
    assert not (flown.path / ".preflight.part").exists()
    assert [event["kind"] for event in flown.dir.read_events()][:2] == ["preflight", "started"]


def test_the_estimate_is_near_what_happens(settings: dict[str, Any]) -> None:
    run = api.train(**settings, preflight=True)
    assert run.estimate
    off = preflight.prediction_errors(run.estimate, run.results)
    assert abs(off["peak_memory_bytes"]) < 0.15
    assert run.estimate["total_steps"] == run.results["steps"]
    real = sum(file.stat().st_size for file in (run.path / "checkpoint-4").iterdir())
    assert run.estimate["checkpoint_bytes"] == pytest.approx(real, rel=0.02)
    assert run.estimate["disk_bytes"] == 4 * run.estimate["checkpoint_bytes"]  # two stand, one is written, the end


def test_estimate_begins_no_run_and_says_its_reasons(settings: dict[str, Any], tmp_path: Path) -> None:
    found, plan = api.estimate(**settings)
    assert found.seconds > 0
    assert found.longest_step_seconds > 0
    assert set(plan.reasons) >= {"total_steps", "global_batch", "micro_tokens", "dtype"}
    assert not (tmp_path / "runs").exists()


def fly(tmp_path: Path, model: Any, config: RunConfig, data: Any) -> Any:
    model = adapt(model, config.method)
    plan = plan_of(config, data, [])
    job = TrainingJob(
        RunDir(tmp_path), config, plan, model, data, [], pad_id=257, write_model=lambda to: save_weights(model, to)
    )
    return preflight.preflight(job)


def test_neither_a_slow_first_step_nor_the_optimizer_is_counted_at_the_end(
    tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([9.0, 5.0, 1.0, 2.0])
    monkeypatch.setattr(preflight, "_timed", lambda *_: (next(times), 10))
    monkeypatch.setattr(preflight, "_mean_tokens", lambda *_: 10)
    monkeypatch.setattr(preflight, "_saved", lambda _: preflight.Saved(8.0, 100, 3.0))
    found, _ = fly(
        tmp_path,
        tiny_model,
        config_of(save_strategy="steps", save_steps=4, output_dir=str(tmp_path / "runs" / "one"), max_steps=12),
        rows(16),
    )
    assert found.step_seconds == 2
    assert found.seconds == 12 * 2 + 2 * 8 + 3


def test_what_the_weights_took_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(_: Any) -> Path:
        (tmp_path / "model.safetensors").write_bytes(bytes(30))
        (tmp_path / "optimizer.safetensors").write_bytes(bytes(70))
        return tmp_path

    monkeypatch.setattr(preflight.loop, "save", save)
    saved = preflight._saved(None)  # type: ignore[arg-type]
    assert saved.bytes == 100
    assert saved.weights_seconds == pytest.approx(0.3 * saved.seconds)


def test_what_does_not_fit_is_stepped_down_by_halves(
    tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sartor.training.stages import sft
    from support.training_runs import Shortage

    monkeypatch.setattr(sft, "summed_loss", Shortage(2, torch.OutOfMemoryError))
    found, plan = fly(tmp_path, tiny_model, config_of(per_device_train_batch_size=8), rows(16))
    assert (found.micro_divisor, plan.micro_batch_size) == (4, 2)
    assert "1/4" in str(plan.reasons["micro_tokens"])


def test_a_disk_without_room_is_refused_before_the_first_step(
    tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    with pytest.raises(RunError, match="checkpoints need"):
        fly(tmp_path, tiny_model, config_of(save_strategy="steps", save_steps=1), rows(16))


def test_advice_fits_the_data() -> None:
    config, data = config_of(num_train_epochs=12.0, per_device_train_batch_size=8), rows(8)
    advice = " ".join(str(text) for text in advise(plan_of(config, data, []), held_out=False))
    for words in ("8 rows are few", "12 steps change little", "seen 12 times", "No rows are held out"):
        assert words in advice
    config = config_of(num_train_epochs=3.0)
    assert advise(plan_of(config, rows(200), []), held_out=True) == ()


def test_peak_memory_sees_what_is_freed_again() -> None:
    with PeakMemory(torch.device("cpu")) as quiet:
        pass
    with PeakMemory(torch.device("cpu")) as peak:
        big = torch.ones(64 << 18)  # 64 MiB
        big += 1
        import time

        time.sleep(0.1)
        del big
    assert peak.bytes > quiet.bytes + (50 << 20)


@pytest.mark.parametrize("fault", ["loss", "memory"])
def test_an_error_before_training_names_neither_its_folder_nor_checkpoints(
    tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    from sartor.training.stages import sft
    from support.training_runs import Shortage

    if fault == "loss":
        with torch.no_grad():
            tiny_model.model.norm.weight[0] = float("nan")
    else:
        monkeypatch.setattr(sft, "summed_loss", Shortage(0, torch.OutOfMemoryError))
    config = config_of(per_device_train_batch_size=4, disable_gradient_checkpointing=True, max_steps=8)
    with pytest.raises(RunError, match="NaN or infinite" if fault == "loss" else "Out of memory") as error:
        fly(tmp_path, tiny_model, config, rows(32))
    assert isinstance(error.value, OutOfMemory) == (fault == "memory")
    for word in (".preflight", str(tmp_path), "Checkpoints", "events.jsonl"):
        assert word not in str(error.value)
