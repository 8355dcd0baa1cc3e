"""The embedded model, whole processes, signals and a full disk: what people will really do."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sartor import api

pytestmark = pytest.mark.real
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1)))}


def sartor(folder: Path, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sartor", *words]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_the_demo_ends_with_a_verdict_and_a_report(tmp_path: Path) -> None:
    done = sartor(tmp_path, "demo", "--max-steps", "6")
    assert done.returncode == 0, done.stderr
    assert "gb18030" in done.stdout
    assert "Try next:" in done.stdout
    assert "Loading weights" not in done.stderr
    assert "Warning" not in done.stderr
    run = tmp_path / "demo" / "runs" / "pride"
    verdict = json.loads((run / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["primary"]["n"] == 20
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Bennet" in page
    assert "<script src" not in page
    assert sartor(tmp_path, "runs", "demo/runs").stdout.count("finished") == 1


@pytest.fixture(scope="module")
def pride(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pride")
    from sartor.cli.demo import pride_file

    api.import_file(pride_file("pride_qa_zh.csv"), "pride_zh", dataset_dir=folder / "data")
    return folder


SETTINGS = [
    "dataset=pride_zh",
    "val_size=20",
    "per_device_train_batch_size=4",
    "cutoff_len=512",
    "lora_rank=8",
    "plot_loss=false",
]


def test_each_signal_checkpoints_and_the_same_command_goes_on(pride: Path) -> None:
    """One run is stopped by one signal after the other, each time two steps further, and then finishes."""
    run = pride / "runs" / "stopped"
    words = ["train", *SETTINGS, f"output_dir={run}", "max_steps=7"]
    command = [sys.executable, "-m", "sartor", *words]
    for step, (number, code) in enumerate([(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], start=1):
        with subprocess.Popen(command, cwd=pride, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
            wait_for_step(process, run, 2 * step)
            process.send_signal(number)
            _, shown = process.communicate()
        assert process.returncode == code
        assert "nothing is lost" in shown
        assert "Traceback" not in shown
        assert list(run.glob("checkpoint-*"))
    done = sartor(pride, *words)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["step"] for event in events if event["kind"] == "step"] == [1, 2, 3, 4, 5, 6, 7]


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    while process.poll() is None:
        if (run / "events.jsonl").exists() and f'"step": {step}, "epoch"' in (run / "events.jsonl").read_text("utf-8"):
            return
        time.sleep(0.05)
    raise AssertionError(f"{run} ended before step {step}: {process.communicate()[1]}")


def test_a_full_disk_is_said_and_the_checkpoint_before_it_stays(pride: Path) -> None:
    """A limit on the size of files stands for the full disk: the adapter fits, the optimizer's state does not."""
    run = pride / "runs" / "full"
    words = ["train", *SETTINGS, f"output_dir={run}", "max_steps=2", "save_strategy=steps", "save_steps=1"]
    limit = 5_000_000

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = sartor(pride, *words, preexec_fn=small_files)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "disk" in done.stderr.lower() or "large" in done.stderr.lower()
    assert not list(run.glob("checkpoint-*"))
    again = sartor(pride, *words)
    assert again.returncode == 0, again.stderr
