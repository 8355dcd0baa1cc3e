"""Two processes (gloo) are one: the same losses and weights with summed gradients and with FSDP2; resume 2 → 1 → 2."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from sartor.base.config import read_yaml, to_yaml
from sartor.base.rundir import RunDir, read_json_lines
from sartor.training import checkpoint
from support.process_runs import finish, losses, project_settings, start, weights

pytestmark = pytest.mark.real


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: Path) -> dict[str, Any]:
    return project_settings(tmp_path, tiny_model_dir, val_size=3, max_steps=6, gradient_accumulation_steps=2)


@pytest.mark.parametrize("ways", [{}, {"fsdp": True}, {"fsdp": True, "finetuning_type": "full", "learning_rate": 1e-3}])
def test_two_processes_equal_one(settings: dict[str, Any], tmp_path: Path, ways: dict[str, Any]) -> None:
    """Tolerance: 1e-4 relative on losses, 2e-4 absolute on weights (sums in another order)."""
    ways = dict(ways)
    one = finish({**settings, **{k: v for k, v in ways.items() if k != "fsdp"}}, 1, tmp_path)
    split = {"gradient_accumulation_steps": 1, "output_dir": str(tmp_path / "two")}
    two = finish({**settings, **ways, **split}, 2, tmp_path)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-3, atol=2e-4)
    evaluated = [
        [event["eval_loss"] for event in read_json_lines(folder / "events.jsonl") if event["kind"] == "eval"]
        for folder in (one, two)
    ]
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-4)


def each_process_wrote_its_own(checkpoint_dir: Path) -> None:
    """Two files that hold about half each, an index of pieces, and a manifest that misses neither file."""
    index = json.loads((checkpoint_dir / "sartor_shards.json").read_text(encoding="utf-8"))
    files = [f"shard-{rank:05d}-of-00002.safetensors" for rank in (0, 1)]
    assert sorted(f.name for f in checkpoint_dir.glob("*.safetensors")) == files
    held = [
        sum(t.numel() for name, t in load_file(checkpoint_dir / file).items() if "random/" not in name)
        for file in files
    ]
    assert min(held) > 0.4 * sum(held)
    kinds = {key.partition("/")[0] for key in index["tensors"]}
    assert kinds == {"weight", "optimizer"}
    assert any(len(known["pieces"]) == 2 for known in index["tensors"].values())
    assert checkpoint.verify(checkpoint_dir) is None
    for file in files:
        whole = (checkpoint_dir / file).read_bytes()
        (checkpoint_dir / file).unlink()
        assert str(checkpoint.verify(checkpoint_dir)) == f"{file} is missing"
        (checkpoint_dir / file).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert str(checkpoint.verify(checkpoint_dir)) == f"{file} is damaged"
        (checkpoint_dir / file).write_bytes(whole)
    assert checkpoint.verify(checkpoint_dir) is None


@pytest.mark.parametrize("method", [{}, {"finetuning_type": "full", "learning_rate": 1e-3}], ids=["lora", "full"])
def test_a_sharded_run_goes_on_with_one_process_and_with_two_again(
    settings: dict[str, Any], tmp_path: Path, method: dict[str, Any]
) -> None:
    settings = {**settings, **method}
    straight = finish(settings, 1, tmp_path)
    folder = tmp_path / "two"
    asked = {**settings, "output_dir": str(folder), "fsdp": True, "gradient_accumulation_steps": 1}
    alone = {**asked, "fsdp": False, "gradient_accumulation_steps": 2}
    finish(asked, 2, tmp_path, stop=2)
    assert [p.name for p in RunDir(folder).checkpoints()] == ["checkpoint-2"]
    each_process_wrote_its_own(folder / "checkpoint-2")
    for settings_now, processes, stop in ((alone, 1, 4), (asked, 2, None)):
        config = folder / "config.yaml"  # another number of processes: other settings, written by hand
        now = {key: settings_now[key] for key in ("fsdp", "gradient_accumulation_steps")}
        config.write_text(to_yaml({**read_yaml(config), **now}), encoding="utf-8")
        finish(settings_now, processes, tmp_path, stop=stop)
    assert RunDir(folder).state() == "finished"
    assert losses(folder) == pytest.approx(losses(straight), rel=1e-4)
    torch.testing.assert_close(weights(folder), weights(straight), rtol=1e-3, atol=2e-4)


def test_a_killed_rank_ends_the_job_with_its_name(settings: dict[str, Any], tmp_path: Path) -> None:
    asked = {**settings, "max_steps": 5000, "output_dir": str(tmp_path / "two"), "gradient_accumulation_steps": 1}
    process = start(asked, 2, tmp_path)
    while len(losses(tmp_path / "two")) < 2 and process.poll() is None:
        time.sleep(0.1)
    ranks = [child for child in psutil.Process(process.pid).children() if "job.py" in " ".join(child.cmdline())]
    assert len(ranks) == 2
    ranks[1].send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode != 0
    assert "Signal 9" in said
    assert f"pid: {ranks[1].pid}" in said or str(ranks[1].pid) in said
