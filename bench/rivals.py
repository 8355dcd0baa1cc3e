"""Environments of the tools that Sartor is measured against, made once in a cache folder; says when they cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TORCH = "torch==2.13.0"
LLAMA_FACTORY = (TORCH, "llamafactory==0.9.5", "nltk", "jieba", "rouge-chinese")


@dataclass(frozen=True)
class Measured:
    """A finished process: wall seconds, its peak resident bytes, and what it wrote."""

    seconds: float
    peak_bytes: int
    output: str


def environments() -> Path:
    """`SARTOR_BENCH`, else a folder in the user's cache."""
    return Path(os.environ.get("SARTOR_BENCH") or Path.home() / ".cache" / "sartor" / "bench")


def llama_factory() -> Path | None:
    """The folder of LLaMA-Factory 0.9.5's environment; None, with the reason printed, when it cannot be made."""
    folder = environments() / "llama-factory"
    command = folder / "bin" / "llamafactory-cli"
    if not command.exists():
        print(f"making {folder} (some minutes) …", flush=True)
        try:
            pip = [str(folder / "bin" / "python"), "-m", "pip"]
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([*pip, "install", "-q", *LLAMA_FACTORY], check=True)
            subprocess.run([*pip, "uninstall", "-qy", "torchvision", "torchaudio"], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"LLaMA-Factory's environment cannot be made here: {error}")
            return None
    stub = folder / "stub" / "torchaudio"  # imported, never used; it has no build for the CPU-only torch
    stub.mkdir(parents=True, exist_ok=True)
    (stub / "__init__.py").write_text("", encoding="utf-8")
    return folder


def run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> Measured:
    """Run one process to its end. Raises: RuntimeError with the end of its output when it fails."""
    import time

    started = time.perf_counter()
    log = folder / "output.txt"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    output = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{output[-2000:]}")
    return Measured(time.perf_counter() - started, usage.ru_maxrss * 1024, output)


def llama_factory_environment(folder: Path) -> dict[str, str]:
    """What its process needs: no network, the stub, no screen of warnings."""
    return {"PYTHONPATH": str(folder / "stub"), "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
