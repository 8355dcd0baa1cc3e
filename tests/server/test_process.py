"""`sartor serve` as a process: it says where it is, answers, ends on a signal, and a taken port is three lines."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.real


def test_a_server_answers_until_a_signal(tiny_model_dir: Path, tuned_dir: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sartor",
        "serve",
        str(tuned_dir),
        "--port",
        "0",
        "--name",
        "mine",
        "max_new_tokens=8",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "mine at http://127.0.0.1:" in line, process.stderr.read() if process.stderr else line
        address = line.split(" at ")[1].split()[0]
        body = {"model": "mine", "messages": [{"role": "user", "content": "Hi"}]}
        assert (
            httpx.post(f"{address}/chat/completions", json=body, timeout=None).json()["usage"]["completion_tokens"] <= 8
        )
        port = address.rpartition(":")[2].partition("/")[0]
        second = subprocess.run([*command[:-4], port], capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "in use" in second.stderr
        assert "--port" in second.stderr
        assert "Traceback" not in second.stderr
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        assert process.returncode in (0, 130, -signal.SIGINT)
        assert "Traceback" not in err
