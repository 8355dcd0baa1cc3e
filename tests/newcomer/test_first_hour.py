"""A newcomer's first hour: three data sets, two models, and nothing typed that the program did not say.

Every "Next:" line is run as it was printed, and so is every command in an error's fix.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real
NEXT = re.compile(r"^\s*Next: (.+)$", re.MULTILINE)
IN_A_FIX = re.compile(r"sartor (?:train|compare|predict|chat) [^()\n]+")
LEDGER = re.compile(r"\d[\d,]* rows read = .*")
QUICK = ("max_steps=4", "use_cpu=true", "plot_loss=false", "forgetting_probe=false", "max_new_tokens=6")


@dataclass
class Newcomer:
    """Someone at a terminal in an empty folder; remembers what the screen says to type."""

    folder: Path
    typed: list[str] = field(default_factory=list)

    def type(self, command: str, *, fails: bool = False) -> str:
        """What a command shows; it fails only where that is expected, and never with a traceback."""
        self.typed.append(command)
        environment = {**os.environ, "SARTOR_LANG": "en", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
        here = (
            command.replace("sartor ", f"{sys.executable} -m sartor ", 1) if command.startswith("sartor ") else command
        )
        done = subprocess.run(
            ["sh", "-c", here],
            cwd=self.folder,
            env=environment,
            input="Who are you?\n/exit\n" if " chat " in command else "",
            capture_output=True,
            text=True,
            check=False,
        )
        shown = done.stdout + done.stderr
        assert "Traceback" not in shown, (command, shown)
        assert (done.returncode != 0) == fails, (command, shown)
        return shown

    def follow(self, shown: str, until: str) -> str:
        """Type what is said to be next until a command of this name has run; what that one showed."""
        for _ in range(6):
            commands = NEXT.findall(shown)
            assert commands, shown
            shown = self.type(commands[0])
            if f" {until} " in commands[0]:
                return shown
        raise AssertionError(f"{until} was never next: {self.typed}")

    def ends(self, shown: str) -> None:
        """Every command that is said to be next works."""
        for command in NEXT.findall(shown):
            self.type(command)


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


@pytest.fixture
def tiny(tmp_path: Path, tiny_model_dir: Path) -> str:
    """A small model with a tokenizer of its own, in a folder beside the data."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(tiny_model_dir)
    return "model_name_or_path=models/tiny"


def ledgers(*shown: str) -> set[str]:
    found = [LEDGER.search(text) for text in shown]
    return {match[0] for match in found if match}


def test_a_messy_table_and_the_included_model(newcomer: Newcomer) -> None:
    """From a GBK table with an unnamed column and an empty answer to a verdict, with the default model."""
    rows = [f"{i},第{i}章讲了什么？,第{i}章讲的是第{i * 7}件事。" for i in range(1, 31)]
    rows[4] = "5,第5章讲了什么？,"
    (newcomer.folder / "问答 表.csv").write_bytes(("\n".join([",问题,答案", *rows]) + "\n").encode("gbk"))
    shown = newcomer.type("sartor import '问答 表.csv' --name chapters")
    assert "1 skipped" in shown
    shown = newcomer.type(f"{NEXT.findall(shown)[0]} max_skipped=0.2 per_device_train_batch_size=2 {' '.join(QUICK)}")
    trained = newcomer.follow(shown, "train")
    verdict = newcomer.follow(trained, "compare")
    assert "loss ◂ decides" in verdict, verdict
    assert len(ledgers(trained, verdict)) == 1
    run = next((newcomer.folder / "runs").iterdir())
    assert (run / "report.html").exists()
    assert "smollm2-135m" in (run / "verdict.json").read_text(encoding="utf-8")
    newcomer.ends(verdict)
    several = newcomer.type(f"sartor compare base runs/{run.name}")
    assert "base" in several
    assert f"Did you mean runs/{run.name}" in newcomer.type(f"sartor chat runs/{run.name[:-2]}", fails=True)


def test_alpaca_rows_that_are_too_long(newcomer: Newcomer, tiny: str) -> None:
    """Skips, held-out rows and settings are the run's own in every later command, from any folder."""
    rows = [
        {
            "instruction": f"How much is {i} and {i}?",
            "input": "",
            "output": f"It is {2 * i}." + " Yes." * (40 * (i % 5 == 0)),
        }
        for i in range(1, 41)
    ]
    (newcomer.folder / "sums.json").write_text(json.dumps(rows), encoding="utf-8")
    shown = newcomer.type("sartor import sums.json --name sums")
    settings = f"{tiny} cutoff_len=128 max_skipped=0.5 learning_rate=1e-2 output_dir=runs/sums {' '.join(QUICK)}"
    trained = newcomer.follow(newcomer.type(f"{NEXT.findall(shown)[0]} {settings}"), "train")
    verdict = newcomer.follow(trained, "compare")
    predicted = newcomer.type("sartor predict runs/sums")
    elsewhere = newcomer.type("cd runs && sartor compare sums".replace("sartor", f"{sys.executable} -m sartor"))
    assert len(ledgers(trained, verdict, predicted, elsewhere)) == 1
    assert "8 skipped" in trained
    newcomer.ends(predicted)
    refused = newcomer.type("sartor compare runs/sums cutoff_len=2048", fails=True)
    assert "it is 128 there" in refused
    assert "Did you mean models/tiny" in newcomer.type("sartor chat models/tinny", fails=True)


@pytest.mark.parametrize("stage", ["dpo", "rm"])
def test_preferences(newcomer: Newcomer, tiny: str, stage: str) -> None:
    """Pairs end in a verdict too; without held-out rows, what is said to be typed leads to one."""
    pairs: list[dict[str, Any]] = [
        {"instruction": f"How much is {i} and 1?", "chosen": f"It is {i + 1}.", "rejected": f"No idea {i}."}
        for i in range(60)
    ]
    (newcomer.folder / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    newcomer.type("sartor import pairs.json --name pairs")
    settings = f"dataset=pairs stage={stage} {tiny} learning_rate=1e-2 {' '.join(QUICK)} max_steps=20"
    verdict = newcomer.follow(newcomer.type(f"sartor train {settings} val_size=0.3 output_dir=runs/pairs"), "compare")
    assert "better on held-out rows" in verdict, verdict
    newcomer.ends(verdict)
    without = newcomer.type(f"sartor train {settings} output_dir=runs/all")
    newcomer.ends(without)
    refused = newcomer.type("sartor compare runs/all", fails=True)
    (again,) = IN_A_FIX.findall(refused)
    shown = newcomer.type(again)
    assert "already finished" in shown  # it was said to be next before
    newcomer.ends(shown)
