"""The command line starts fast, speaks in three lines, and keeps its exit codes."""

from __future__ import annotations

import os
import re
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


def test_version_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from sartor import __version__
    from sartor.base.settings import SECTIONS

    assert run("--version") == 0
    assert capsys.readouterr().out == f"sartor {__version__}\n"
    assert run("settings", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [key for section in SECTIONS.values() for key in section.model_fields]
    assert all(row["type"] and row["description"] for row in rows)
    assert run("settings", "quantization_bit") == 0
    assert "4 | 8 = None" in capsys.readouterr().out
    assert run("settings", "lora_rnk") == 1
    assert "lora_rank" in capsys.readouterr().err
    assert run("settings", "--section", "methd") == 1
    assert "method" in capsys.readouterr().err


def test_every_command_that_reads_data_or_models_has_the_same_permissions() -> None:
    import typer

    from sartor.cli import app
    from sartor.cli.arguments import PERMISSION_OPTIONS

    commands = typer.main.get_group(app).commands
    asks = {name for name, command in commands.items() if {p.name for p in command.params} & set(PERMISSION_OPTIONS)}
    reads = "show check split train estimate rerun predict compare chat export serve"
    assert asks == set(reads.split())
    for name in asks:
        assert set(PERMISSION_OPTIONS) <= {parameter.name for parameter in commands[name].params}


def test_help_is_shown_in_the_readers_language(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SARTOR_LANG", "zh")
    monkeypatch.setattr("sartor.cli.arguments.Text.render", lambda text: f"译 {text.message}")
    assert run("train", "--help") == 0
    shown = capsys.readouterr().out
    assert "译 Fine-tune" in shown
    assert "译 Move" in shown


def test_help_offers_shell_completion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "--install-completion" in capsys.readouterr().out


def test_the_shell_completes_commands() -> None:
    asked = {"_SARTOR_COMPLETE": "complete_bash", "COMP_WORDS": "sartor exp", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "sartor"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["export"]


@pytest.mark.parametrize("command", [[], ["train"], ["generate"]])
def test_help_is_all_chinese(command: list[str]) -> None:
    """In a process of its own, as a shell starts it. `Usage:` and value types are Typer's and stay."""
    environment = {**os.environ, "SARTOR_LANG": "zh", "COLUMNS": "200"}
    words = [sys.executable, "-m", "sartor", *command, "--help"]
    shown = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    lines = [line for line in shown.splitlines() if "Usage:" not in line]
    prose = re.compile(r"[A-Z]?[a-z]+(?: [a-z]+){2,}|─ [A-Z][a-z]+ ─|\[default|\[required")
    assert [line for line in lines if prose.search(line)] == []
