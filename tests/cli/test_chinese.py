"""In Chinese, no command prints an English sentence: the article's way from a GBK file to an export."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from sartor.cli.demo import SETTINGS, pride_file
from support.commands import run

ROWS = "".join(f"{i},第{i}章的题目是什么?,第{i}章的题目是数字{i * 7}。\n" for i in range(1, 41))
NO_PROSE = re.compile(
    r"\x1b\[[0-9;]*m"  # colors
    r"|https?://\S+|\S*[/\\]\S*"  # addresses and paths
    r"|`[^`]*`|'[^']*'|\"[^\"]*\""  # quoted names and data
    r"|\bsartor [^#（]*"  # commands
    r"|[\w.-]+[=:]\s?[\w.<>{}-]+"  # key=value
    r"|<\|[^|]*\|>"  # control tokens
    r"|\b[\w-]+[._|-][\w.|:-]+"  # names of settings, metrics, files; signatures
)
COMMANDS = ("import", "show", "check", "train", "predict", "compare", "report", "chat", "export", "demo")
ENGLISH = re.compile(r"[A-Za-z]+(?:[ ,;]+[A-Za-z]+){2,}")
with pride_file("pride_qa_en.csv").open(encoding="utf-8", newline="") as file:
    ENGLISH_DATA = sorted((cell for row in csv.reader(file) for cell in row[1:]), key=len, reverse=True)
ALLOWED = ("system user assistant",)
"""English that stays: names of roles in a rendered prompt."""


def english_lines(shown: str) -> list[str]:
    """The lines with three or more English words in a row that are no path, name, command or quoted data."""
    found = []
    for line in shown.splitlines():
        words = ENGLISH.search(NO_PROSE.sub(" · ", line))
        if words and words[0] not in ALLOWED:
            found.append(line)
    return found


def test_an_english_sentence_is_found_among_names_and_commands() -> None:
    assert english_lines("下一步：sartor show chapters --dataset-dir data") == []
    assert english_lines("  rouge-1.char  12.3  100  8  rouge1|char|lf-0.9.5") == []
    assert english_lines("  written: the file is here") == ["  written: the file is here"]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_english_sentence_in_chinese(command: str, shown_by: dict[str, str]) -> None:
    shown = shown_by[command]
    for text in ENGLISH_DATA:  # a long text may be wrapped
        shown = re.sub(r"\s+".join(map(re.escape, text.split())), "…", shown)
    assert english_lines(shown) == []


@pytest.fixture(scope="module")
def shown_by(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> dict[str, str]:
    """What each command of the flow prints under LANG=zh_CN.UTF-8, on the tiny model."""
    folder = tmp_path_factory.mktemp("chinese")
    (folder / "qa.csv").write_bytes((",问题,答案\n" + ROWS).encode("gbk"))
    model = f"model_name_or_path={tiny_model_dir}"
    settings = ["dataset=chapters", "val_size=8", "max_steps=3", "use_cpu=true", "output_dir=runs/one"]
    settings += ["plot_loss=false", "max_new_tokens=4", "lora_rank=4", "eval_strategy=steps", "eval_steps=2"]
    commands: dict[str, list[str]] = {
        "import": ["import", "qa.csv", "--name", "chapters"],
        "show": ["show", "chapters", model],
        "check": ["check", "chapters", model],
        "train": ["train", model, *settings],
        "predict": ["predict", "runs/one"],
        "compare": ["compare", "runs/one", "forgetting_probe=false"],
        "report": ["report", "runs/one"],
        "chat": ["chat", "runs/one"],
        "export": ["export", "runs/one", "--to", "merged", "--out", "out"],
        "demo": ["demo", "--max-steps", "2"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SARTOR_LANG")
        patch.delenv("LC_ALL", raising=False)
        patch.delenv("LC_MESSAGES", raising=False)
        patch.setenv("LANG", "zh_CN.UTF-8")
        patch.setenv("COLUMNS", "500")  # no line is wrapped
        tiny = {"model_name_or_path": str(tiny_model_dir), "bf16": False, "use_cpu": True, "max_new_tokens": 4}
        patch.setattr("sartor.cli.demo.SETTINGS", {**SETTINGS, **tiny})
        return {name: _shown(patch, words) for name, words in commands.items()}


def _shown(patch: pytest.MonkeyPatch, words: list[str]) -> str:
    out = io.StringIO()
    patch.setattr("sys.stdout", out)
    patch.setattr("sys.stderr", out)
    patch.setattr("sys.stdin", io.StringIO("/help\n你好\n/base\n/quit\n"))
    assert run(*words) == 0, out.getvalue()
    return out.getvalue()
