"""The command line starts fast, speaks in three lines, and keeps its exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sartor.cli import main


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    for command in (
        "demo",
        "import",
        "show",
        "train",
        "predict",
        "score",
        "compare",
        "report",
        "chat",
        "runs",
        "rerun",
        "env",
    ):
        assert command in shown


def test_syntax_is_2_and_bad_news_is_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("nonsense") == 2
    assert run("train", "learnin_rate=1") == 1
    shown = capsys.readouterr().err
    assert "Unknown setting 'learnin_rate'." in shown
    assert "Did you mean learning_rate" in shown
    assert "Traceback" not in shown


def test_help_and_the_package_load_no_torch() -> None:
    program = "import sys, sartor, sartor.cli; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
