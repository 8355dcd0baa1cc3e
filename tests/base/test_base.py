"""Ledgers add up, labels are spans, catalogues agree, runs tell their state, layers import no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sartor.base.errors import ConfigError, RunError, close_matches
from sartor.base.process import ProcessIdentity
from sartor.base.rundir import RunDir, append_json_line, read_json_lines
from sartor.base.types import Ledger, Origin, Skipped, TokenSequence
from sartor.data.formats import FORMATS
from sartor.exporters import EXPORTERS


def test_ledgers_add_and_balance() -> None:
    skipped = Skipped(Origin("d", "d.csv", 3), "answer-missing", "answer", {"field": "answer"})
    ledger = Ledger(read=10, training=9, skipped=(skipped,)) + Ledger(read=5, training=3, held_out=2)
    assert ledger.balanced
    assert ledger.skipped_frac == pytest.approx(1 / 15)
    assert not Ledger(read=1).balanced


def test_labels_are_the_learned_spans_and_the_first_token_is_never_counted() -> None:
    row = TokenSequence(np.arange(10, 16, dtype=np.int32), ((0, 2), (4, 6)))
    assert row.labels.tolist() == [10, 11, -100, -100, 14, 15]
    assert row.label_tokens == 3


def test_skipped_speaks_the_chosen_language(monkeypatch: pytest.MonkeyPatch) -> None:
    skipped = Skipped(Origin("d", "d.csv", 3), "answer-missing", "答案", {"field": "答案"})
    assert str(skipped.reason) == "The row has no answer (答案 is empty or missing)."
    monkeypatch.setenv("SARTOR_LANG", "zh")
    assert str(skipped.reason) == "该行没有答案（答案 为空或缺失）。"


def test_a_run_tells_its_state_from_its_events(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.state() == "new"
    run.event("started", process=ProcessIdentity.of().to_json())
    assert run.state() == "running"
    run.event("started", process=ProcessIdentity.of(2**22 + 1).to_json())
    assert run.state() == "interrupted"
    run.event("finished")
    with run.events.open("ab") as file:
        file.write(b'{"kind": "fai')
    assert run.state() == "finished"


def test_json_lines_are_appended_whole(tmp_path: Path) -> None:
    append_json_line(tmp_path / "x.jsonl", {"a": "中\n"})
    assert (tmp_path / "x.jsonl").read_bytes() == '{"a": "中\\n"}\n'.encode()
    with (tmp_path / "x.jsonl").open("ab") as file:
        file.write(b'{"torn')
    append_json_line(tmp_path / "x.jsonl", {"b": 1})
    assert list(read_json_lines(tmp_path / "x.jsonl")) == [{"a": "中\n"}, {"b": 1}]


def test_an_unknown_plugin_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="sharegpt"):
        FORMATS.get("sharegtp")


def test_the_lower_layers_and_the_package_import_no_torch() -> None:
    program = """
import pkgutil, importlib, sys
import sartor, sartor.base, sartor.data, sartor.prompt
for layer in (sartor.base, sartor.data, sartor.prompt):
    for module in pkgutil.walk_packages(layer.__path__, layer.__name__ + "."):
        importlib.import_module(module.name)
print([name for name in ("torch", "peft", "accelerate") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_run_that_is_not_there_and_one_without_the_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Run not found"):
        RunDir(tmp_path / "gone").read_json("data.json")
    with pytest.raises(RunError, match=r"The run has no data\.json"):
        RunDir(tmp_path).read_json("data.json")


def test_a_mistyped_plug_in_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Unknown export format 'gguff'") as raised:
        EXPORTERS.get("gguff")
    assert str(raised.value.fix) == "Did you mean gguf?"


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("learnin_rate", ["learning_rate", "warmup_ratio"], ["learning_rate"]),
        ("lora-rank", ["lora_rank"], ["lora_rank"]),
        ("stf.yaml", ["sft.yaml"], ["sft.yaml"]),
        ("LLAMA", ["llama3", "llama2", "alpaca"], ["llama2", "llama3"]),
        ("pride", ["pride_zh", "other"], ["pride_zh"]),
        ("minimax2", ["gemma2", "gemma3", "phi4"], []),
        ("fp8", ["fsdp", "fp16"], []),
        ("use_kt", ["use_cpu", "use_dora"], []),
        ("ray_num_workers", ["max_new_tokens"], []),
        ("", ["a"], []),
        ("a" * 1_000_000, ["a"], []),
    ],
)
def test_only_a_slip_is_answered_with_another_name(name: str, known: list[str], near: list[str]) -> None:
    assert close_matches(name, known) == near
