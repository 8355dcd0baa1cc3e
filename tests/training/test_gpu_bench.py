"""bench/gpu.py runs where only torch, transformers, peft, accelerate and pydantic are; here on a toy shape."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[2] / "bench" / "gpu.py"
BLOCKER = """
from importlib.machinery import PathFinder
real = PathFinder.find_spec
def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {names} else real(name, path, target)
PathFinder.find_spec = classmethod(find_spec)
"""
UNNEEDED = {
    "pyarrow",
    "orjson",
    "python_calamine",
    "chardet",
    "rapidfuzz",
    "sacrebleu",
    "jieba",
    "rjieba",
    "datasketch",
    "matplotlib",
    "gguf",
    "zstandard",
    "nicegui",
    "fastapi",
    "datasets",
    "bitsandbytes",
    "trl",
    "pandas",
    "xllamacpp",
}


def run(words: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER.replace("{names}", repr(UNNEEDED)), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        cwd=tmp_path,
        check=False,
        timeout=200,
    )


@pytest.mark.real
def test_both_tools_are_measured_on_a_toy_shape_without_any_data_reader(tmp_path: Path) -> None:
    done = run([str(BENCH), "--tiny", "--device", "cpu", "--out", "found.csv"], tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        ours, theirs = csv.DictReader(file)
    assert [line["tool"] for line in (ours, theirs)] == ["sartor", "trainer"]
    for line in (ours, theirs):
        assert line["note"] == ""
        share, rate = float(line["share_of_roof"]), float(line["tokens_per_second"])
        assert 0 < share < 1
        # 4 weights in two layers and the head: 2·(64·(64+2·32) + 64·64 + 3·64·128) + 64·512
        weights = 2 * (64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 128) + 64 * 512
        assert share == pytest.approx(4 * weights * rate / float(line["roof_tflops"]) / 1e12, rel=0.05, abs=2e-4)
        assert 5.5 < float(line["loss"]) < 6.7  # ln 512 = 6.24: random weights, random rows


@pytest.mark.real
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_it_says_so(tmp_path: Path) -> None:
    done = run([str(BENCH)], tmp_path)
    assert done.returncode == 1
    assert "no CUDA device" in done.stdout
    blocked = run(["-c", "import pyarrow"], tmp_path)
    assert "No module named 'pyarrow'" in blocked.stderr  # the blocker of these tests blocks
