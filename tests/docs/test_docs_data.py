"""docs/data.md is executed: files written, entries read, what it says is printed compared, commands run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from sartor.base.errors import DataError
from sartor.base.types import Document, Example, Feedback, Message, Preference
from sartor.cli import main
from sartor.data.dataset_info import KEYS, parse_entry, read_registry
from sartor.data.dataset_spec import COLUMNS, TAGS
from sartor.data.load import Loaded, load

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
BLOCKS = re.findall(r"```(\w+) ?(.*?)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def turn(message: Message) -> str:
    calls = "".join(f"{call.name}({json.dumps(call.arguments)})" for call in message.tool_calls)
    return f"{message.role}: {message.text}{calls}".replace("\n", "\\n")


def drawn(example: Example) -> str:
    assert not isinstance(example, Document)
    if isinstance(example, Preference):
        ends = [f"chosen: {example.chosen.text}", f"rejected: {example.rejected.text}"]
        return " | ".join([*map(turn, example.prompt), *ends])
    end = [("good" if example.good else "not good")] if isinstance(example, Feedback) else []
    return " | ".join([*map(turn, example.messages), *end])


def said(name: str, loaded: Loaded) -> list[str]:
    ledger = loaded.ledger
    skipped = len(ledger.skipped)
    head = f"{name}: read {ledger.read}, training {ledger.training}, left out {ledger.left_out}, skipped {skipped}"
    lost = [f"{row.origin}: {row.reason}" for row in ledger.skipped]
    return [head, *(f"  {line}" for line in (*map(drawn, loaded.examples), *lost))]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SARTOR_LANG", "en")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_entry_reads_as_the_page_says(home: Path) -> None:
    compared = 0
    for language, file, text in BLOCKS:
        if file and file != "refused":
            (home / file).write_text(text, encoding="utf-8")
        elif language == "text":
            names = read_registry(home).entries
            assert [line for name in names for line in said(name, load(name, home))] == text.splitlines()
            compared += 1
    assert compared == 4


def test_the_entries_that_are_not_fetched_are_right_and_media_are_refused(home: Path) -> None:
    for language, file, text in BLOCKS:
        if language == "json" and file in ("", "refused"):
            for name, entry in json.loads(text).items():
                if file:
                    with pytest.raises(DataError, match="does not train on"):
                        parse_entry(name, entry, home / "dataset_info.json")
                else:
                    parse_entry(name, entry, home / "dataset_info.json")


def test_the_commands_run(home: Path, capsys: pytest.CaptureFixture[str], tiny_model_dir: Path) -> None:
    files = {file: text for _, file, text in reversed(BLOCKS) if file}  # the first registry of the page
    for file, text in files.items():
        (home / "data" if file != "made.csv" else home).mkdir(exist_ok=True)
        (home / "data" / file if file != "made.csv" else home / file).write_text(text, encoding="utf-8")
    for language, _, text in BLOCKS:
        if language == "bash":
            for line in text.splitlines():
                with pytest.raises(SystemExit) as ended:
                    main(shlex.split(line.replace("MODEL", str(tiny_model_dir)))[1:])
                assert ended.value.code in ((1,) if line.startswith("sartor check") else (0, None)), line
    assert "1 held out" in capsys.readouterr().out
    saved = json.loads((home / "data" / "plain.split.json").read_text(encoding="utf-8"))
    assert (saved["by"], saved["held_out"]) == ("input", ["plain:1"])
    assert (home / "imported" / "dataset_info.json").exists()
    assert (home / "streamed" / "adapter_model.safetensors").exists()
    (reject,) = (home / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    assert (json.loads(reject)["row"], json.loads(reject)["code"]) == (3, "answer-missing")
    assert (home / "fixed.json").exists()


def test_every_key_stands_in_an_example() -> None:
    examples = "".join(text for language, _, text in BLOCKS if language == "json")
    missing = {key for key in (*KEYS, *COLUMNS, *TAGS) if f'"{key}"' not in examples}
    assert not missing
