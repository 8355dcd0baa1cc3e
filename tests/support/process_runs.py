"""Trainings in one or several processes: started from a script, waited for, their losses and weights read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sartor.base.rundir import read_json_lines

SCRIPT = """
import json, os, signal, sys
from sartor import api
from sartor.training import loop
from sartor.training.distributed import processes
job = json.loads(sys.argv[1])

class Stop:
    def on_event(self, event):
        if event["kind"] == "step" and event["step"] == job.get("stop"):
            signal.raise_signal(signal.SIGTERM)
        if event["kind"] == "step" and job.get("slow"):
            import time; time.sleep(0.2)

real = loop.set_up
def checked(job_of_run):
    training = real(job_of_run)
    if job["settings"].get("fsdp"):
        from torch.distributed.tensor import DTensor
        model = training.module.model
        moving = [p for p in model.parameters() if p.requires_grad]
        assert processes.world_size() == 2 and all(isinstance(p, DTensor) for p in moving)
        assert all(p.to_local().numel() < p.numel() for p in moving if p.shape[0] > 1)
    return training
loop.set_up = checked
try:
    api.train(**job["settings"], callbacks=[Stop()])
except Exception as error:
    sys.exit(getattr(error, "exit_code", 1) if print(repr(error), file=sys.stderr) is None else 1)
"""


def start(settings: dict[str, Any], processes: int, tmp_path: Path, **job: Any) -> subprocess.Popen[str]:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT, encoding="utf-8")
    words = [str(script), json.dumps({"settings": settings, **job})]
    how = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, *how, *words], env=environment, text=True, stderr=subprocess.PIPE, encoding="utf-8"
    )


def finish(settings: dict[str, Any], processes: int, tmp_path: Path, **job: Any) -> Path:
    process = start(settings, processes, tmp_path, **job)
    _, said = process.communicate()
    assert process.returncode == 0 or job.get("stop"), said[-3000:]
    return Path(settings["output_dir"])


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in read_json_lines(folder / "events.jsonl") if event["kind"] == "step"]


def weights(folder: Path) -> torch.Tensor:
    (file,) = [f for f in folder.iterdir() if f.name in ("adapter_model.safetensors", "model.safetensors")]
    return torch.cat([t.flatten() for _, t in sorted(load_file(file).items())])


def project_settings(
    tmp_path: Path, tiny_model_dir: Path, *, rows: int = 22, longest: int = 4, **settings: Any
) -> dict[str, Any]:
    """A project of sums whose answers are repeated up to `longest` times, and settings that train on it."""
    turns = [
        {"instruction": f"How much is {i} and 1?", "output": f"It is {i + 1}." * (1 + i % longest)} for i in range(rows)
    ]
    data = tmp_path / "data"
    data.mkdir()
    (data / "sums.json").write_text(json.dumps(turns), encoding="utf-8")
    (data / "dataset_info.json").write_text(json.dumps({"sums": {"file_name": "sums.json"}}), encoding="utf-8")
    return {
        "model_name_or_path": str(tiny_model_dir),
        "dataset": "sums",
        "dataset_dir": str(data),
        "output_dir": str(tmp_path / "one"),
        "lora_rank": 4,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "dtype": "float32",
        "plot_loss": False,
        "per_device_train_batch_size": 4,
        **settings,
    }
