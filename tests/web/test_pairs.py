"""Generated pairs: priced before anything is asked, kept as a person decided, shown beside their proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartor.api import generating
from sartor.base.errors import DataError
from sartor.base.types import Message
from sartor.data.generate.run import Completion
from sartor.data.load import load
from sartor.web.jobs import Job
from sartor.web.pages.generate import marked
from sartor.web.pairs import Pair, estimate, keep, read
from sartor.web.worker import work


def document(folder: Path) -> Path:
    file = folder / "uploads" / "tea.txt"
    file.parent.mkdir(parents=True)
    file.write_text("Tea was drunk in China long before it came to Europe.\n\nIt came by ship.\n", encoding="utf-8")
    return file


def pair(number: int, **changed: Any) -> Pair:
    told: dict[str, Any] = {
        "question": f"Q{number}", "answer": f"A{number}", "quote": "q", "document": "d.txt", "sha256": "0",
        "section": "", "start": 0, "stop": 1, "passage": "q",
    }  # fmt: skip
    return Pair(**{**told, **changed})


def test_the_price_is_told_before_any_model_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model was asked")

    monkeypatch.setattr(generating, "_embedded", never)
    found = estimate({"documents": [str(document(tmp_path))], "name": "tea", "model": "m"})
    assert found["passages"] == 1
    assert found["most_tokens_out"] > 0


def test_a_job_leaves_its_pairs_and_registers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = "drunk in China long before"
    made = [
        {"question": "Where?", "answer": "In China.", "quote": proof},
        {"question": "?", "answer": "x", "quote": "-"},
    ]

    def model(_: str) -> Any:
        def complete(messages: list[Message]) -> Completion:
            return Completion(json.dumps(made))

        return complete

    monkeypatch.setattr(generating, "_embedded", model)
    job = Job(tmp_path / ".sartor" / "jobs" / "1", "generate", "tea",
              {"documents": [str(document(tmp_path))], "name": "tea", "model": "m"})  # fmt: skip
    job.path.mkdir(parents=True)
    told = work(job)
    assert told == {"pairs": 1, "refused": {"quote-not-found": 1}, "failed": 0}
    assert [(p.question, p.quote, p.accepted) for p in read(job)] == [("Where?", proof, True)]
    assert proof in read(job)[0].passage
    assert not (tmp_path / "data").exists()
    assert job.read("progress.json") == {"done": 1, "total": 1}


def test_what_a_person_took_and_changed_becomes_the_dataset(tmp_path: Path) -> None:
    pairs = [pair(1), pair(2, accepted=False), pair(3, answer="changed "), pair(4, answer=" ")]
    assert keep(pairs, "tea", tmp_path) == 2
    rows = load("tea", tmp_path).examples
    assert [[m.text for m in row.messages] for row in rows] == [["Q1", "A1"], ["Q3", "changed"]]  # type: ignore[union-attr]


def test_nothing_taken_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No pair"):
        keep([pair(1, accepted=False)], "tea", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_quote_is_marked_across_line_breaks_and_nothing_is_markup() -> None:
    assert marked("<b>Tea was\n drunk</b>.", "Tea was drunk") == "&lt;b&gt;<mark>Tea was\n drunk</mark>&lt;/b&gt;."
    assert marked("a\u202eb", "none") == "a⟨U+202E⟩b"
    assert marked("a.b", "a+b") == "a.b"


def test_pairs_of_a_job_that_left_none(tmp_path: Path) -> None:
    assert read(Job(tmp_path, "generate", "x", {})) == []
