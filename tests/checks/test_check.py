from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sartor.base.config import RunConfig
from sartor.base.types import Demonstration, Message, Origin, Skipped
from sartor.checks import CheckResult, apply_fixes, check, near_pairs, write_rejects
from sartor.checks.lint_input import LintInput, row_of
from sartor.checks.rules import RULES
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.import_file import import_file
from sartor.data.import_record import read_refused
from sartor.data.load import load
from sartor.data.read_rows import read_raw, read_values
from sartor.prompt.encode import Encoder
from sartor.prompt.template import Template
from support.byte_tokenizers import byte_tokenizer

FILLER = [f"Sentence number {n} is about {word}." for n, word in enumerate("abcdefghijklmnopqrstuvwxyz")]


def checked(tmp_path: Path, rows: list[Any], entry: dict[str, Any] | None = None, **settings: Any) -> CheckResult:
    (tmp_path / "made.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    registry = {"made": {"file_name": "made.json", **(entry or {})}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(registry), encoding="utf-8")
    config = RunConfig.from_dict(settings)
    tokenizer = byte_tokenizer(("<|im_start|>", "<|im_end|>"))
    encoder = Encoder(tokenizer, Template.from_tokenizer(tokenizer, "chatml"), config.prompt)
    return check(load("made", tmp_path), encoder, config)


def row(question: str, answer: Any) -> dict[str, Any]:
    return {"instruction": question, "output": answer}


def test_findings_name_row_and_fix(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        [
            row("Who?", "Darcy."),
            row("Who?", "Bingley."),
            row("Why?", ""),
            row("What?", "x" * 200),
            row("Mail?", "a.b@c.org"),
        ],
        cutoff_len=150,
    )
    by_code = {finding.code: finding for finding in found.findings}
    assert [finding.code for finding in found.errors] == ["answer-missing", "overlong"]
    assert (by_code["answer-missing"].origin.row, by_code["answer-missing"].field) == (3, "output")  # type: ignore[union-attr]
    assert by_code["answers-differ"].other == Origin("made", "made.json", 1, 1)
    assert by_code["rows-overlong"].params["every"] == 256
    told = found.to_json()
    assert json.loads(json.dumps(told)) == told
    assert told["summary"]["answers-differ"] == 1
    assert {"code", "file", "row", "line", "field", "message", "fix"} <= told["findings"][0].keys()
    assert told["facts"]["tokens_max"] > 200
    out = io.StringIO()
    Console(file=out, width=300).print(found.rich())
    assert "made.json, row 3, line 1, output" in out.getvalue()
    assert "Bingley" not in out.getvalue()


def test_a_clean_set_says_so(tmp_path: Path) -> None:
    rows = [row(f"What is the meaning of word {n}?", f"{FILLER[n % 26]} {n * 'It is so. '}") for n in range(60)]
    found = checked(tmp_path, rows, per_device_train_batch_size=1, gradient_accumulation_steps=1)
    assert not found.errors
    assert [f.code for f in found.findings if f.code not in ("near-duplicate",)] == []
    assert found.facts["steps"] == 180


def test_equal_rows_across_the_split_are_leaks(tmp_path: Path) -> None:
    rows = [row("Who owns Pemberley in Derbyshire?", "Mr. Darcy owns it.") for _ in range(40)]
    found = checked(tmp_path, rows, val_size=0.5)
    leaks = [finding for finding in found.findings if finding.code == "leak"]
    assert len(leaks) == 20
    assert found.facts["held_out_rows"] == 20
    assert "few-held-out" not in found.summary
    assert checked(tmp_path, rows).summary["duplicate"] == 39


def test_near_pairs_finds_what_brute_force_finds() -> None:
    drawn = random.Random(0)
    texts = [" ".join(drawn.choices(FILLER, k=4)) for _ in range(150)]
    texts += [text.replace("about", "on", 1) for text in texts[:30]] + texts[:10] + ["", " ", "a", "b"]

    def grams(text: str) -> set[str]:
        folded = " ".join(text.lower().split())
        return {folded[n : n + 2] for n in range(len(folded) - 1)}

    near = {n for n in range(len(texts)) for m in range(n) if _jaccard(grams(texts[m]), grams(texts[n])) >= 0.9}
    pairs = near_pairs(texts, 0.9)
    found = {pair.second for pair in pairs}
    assert len(near) > 30
    assert len(found & near) >= 0.97 * len(near)
    assert found <= near, "every pair is compared exactly"
    for pair in pairs:
        assert pair.similarity == pytest.approx(_jaccard(grams(texts[pair.first]), grams(texts[pair.second])))
    assert {(p.first, p.second) for p in pairs if p.second >= 180} == {(n, 180 + n) for n in range(10)}


def test_a_large_family_of_near_equal_texts_stays_cheap() -> None:
    texts = [f"The quick brown fox jumps over the lazy dog and the number {n} wins." for n in range(1500)]
    assert len(near_pairs(texts)) > 1400


def test_rejects_hold_row_and_reason(tmp_path: Path) -> None:
    bad = [row("Who?", "Darcy."), row("Why?", None), "no object", row("What?", "long " * 100)]
    found = checked(tmp_path, bad, cutoff_len=100)
    spec = DatasetSpec("made", tmp_path, file_name="made.json")
    skipped = [Skipped(f.origin, f.code, f.field, f.params) for f in found.errors if f.origin]
    assert write_rejects(tmp_path / "rejects.jsonl", skipped, read_raw(spec)) == 3
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["row"], line["code"]) for line in lines] == [
        (2, "answer-missing"),
        (3, "row-not-object"),
        (4, "overlong"),
    ]
    assert lines[0]["data"] == bad[1]
    assert lines[1]["data"] == "no object"
    assert all(line["reason"] and line["fix"] for line in lines)


def test_fixing_changes_what_is_safe_and_nothing_else(tmp_path: Path) -> None:
    rows = [
        {"\ufeffinstruction": "Who? \n", "output": 1813, "system": " ", "score": 7, "note": None},
        {"instruction": "\ufeffWhy?", "output": "So.", "system": "Be brief."},
        "no object",
    ]
    (tmp_path / "made.json").write_text(json.dumps(rows), encoding="utf-8")
    spec = DatasetSpec("made", tmp_path, file_name="made.json")
    done = apply_fixes(tmp_path / "fixed.json", read_values(spec), spec)
    assert json.loads((tmp_path / "fixed.json").read_text(encoding="utf-8")) == [
        {"instruction": "Who?", "output": "1813", "score": 7, "note": None},
        {"instruction": "Why?", "output": "So.", "system": "Be brief."},
        "no object",
    ]
    assert done.rows == 3
    assert done.summary == {"fixed-bom": 2, "fixed-space": 1, "fixed-number": 1, "fixed-blank": 1}
    assert (Origin("made", "made.json", 1, 1), "output", "fixed-number") in done.changes
    assert any("2" in line for line in done.lines())


def test_fixing_a_conversation(tmp_path: Path) -> None:
    turns = [{"from": "User", "value": "a "}, {"from": "gpt", "value": "b"}, {"from": "narrator", "value": "c"}]
    (tmp_path / "made.jsonl").write_text(json.dumps({"conversations": turns, "tools": ""}) + "\n", encoding="utf-8")
    spec = DatasetSpec("made", tmp_path, file_name="made.jsonl", formatting="sharegpt")
    done = apply_fixes(tmp_path / "fixed.json", read_values(spec), spec)
    written = json.loads((tmp_path / "fixed.json").read_text(encoding="utf-8"))[0]
    assert [turn["from"] for turn in written["conversations"]] == ["human", "gpt", "narrator"]
    assert written["conversations"][0]["value"] == "a"
    assert done.summary == {"fixed-role": 1, "fixed-space": 1}
    assert turns[0]["from"] == "User", "the file itself is not touched"


def test_oversampled_rows_are_no_duplicates() -> None:
    example = Demonstration((Message("user", "Who?"), Message("assistant", "Darcy.")), Origin("a", "a.json", 1))
    assert list(RULES.get("repeats").find(LintInput([row_of(example), row_of(example)]))) == []


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def test_repeats_and_personal_data_are_changed_on_request_only(tmp_path: Path) -> None:
    rows = [
        row("Who?", "Darcy, +86 138 0013 8000, a@b.example.com") | {"id": "1"},
        row("Who?", "Darcy,  +86 138 0013 8000, a@b.example.com") | {"id": "2"},
        row("Card?", "11010519491231002X or 110105194912310021"),
    ]
    (tmp_path / "made.json").write_text(json.dumps(rows), encoding="utf-8")
    spec = DatasetSpec("made", tmp_path, file_name="made.json")
    plain = apply_fixes(tmp_path / "plain.json", read_values(spec), spec)
    assert (plain.rows, plain.summary) == (3, {})
    done = apply_fixes(tmp_path / "f.json", read_values(spec), spec, remove_repeats=True, mask_personal=True)
    written = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert [one["output"] for one in written] == ["Darcy, [PHONE], [EMAIL]", "[ID] or 110105194912310021"]
    assert done.summary == {"fixed-personal": 5, "fixed-repeat": 1}


def test_a_fixed_copy_keeps_numbers_and_halves_of_characters(tmp_path: Path) -> None:
    text = '[{"instruction": "Q \\ud83d", "output": 1.10, "n": 123456789012345678901234567890, "x": 1e999}]'
    (tmp_path / "made.json").write_text(text, encoding="utf-8")
    spec = DatasetSpec("made", tmp_path, file_name="made.json")
    apply_fixes(tmp_path / "f.json", read_values(spec), spec)
    written = (tmp_path / "f.json").read_text(encoding="utf-8")
    for kept in ('"Q \\ud83d"', '"1.10"', "123456789012345678901234567890", '"x": 1e999'):
        assert kept in written


def test_refused_rows_of_the_import_are_counted_and_rejected(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("question,answer\nQ1,A1\nQ2,\n", encoding="utf-8")
    import_file(tmp_path / "t.csv", "made", tmp_path)
    tokenizer = byte_tokenizer(("<|im_start|>", "<|im_end|>"))
    found = check(load("made", tmp_path), Encoder(tokenizer, Template.from_tokenizer(tokenizer, "chatml")))
    facts = [found.facts[f"import_{name}"] for name in ("read", "kept", "refused")]
    assert facts == [2, 1, 1]
    assert "2 rows read = 1 kept + 1 refused" in str(_text(found))
    refused = read_refused(tmp_path, "made")
    assert write_rejects(tmp_path / "r.jsonl", (), read_raw(load("made", tmp_path).spec), refused) == 1
    assert json.loads((tmp_path / "r.jsonl").read_text("utf-8"))["data"] == {"question": "Q2", "answer": ""}


def _text(found: CheckResult) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(found.rich())
    return console.export_text()
