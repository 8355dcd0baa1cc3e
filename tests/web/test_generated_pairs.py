"""Generated pairs: priced before anything is asked, kept as a person decided, shown beside their proof."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sartor.api import generating
from sartor.base.errors import DataError, SartorError
from sartor.base.types import Completion, Demonstration, Message
from sartor.data.load import load
from sartor.web.generated_pairs import Pair, estimate, keep, read
from sartor.web.jobs import Job, Jobs
from sartor.web.pages.generate import GenerateForm, GenerateView
from sartor.web.pages.pair_review import marked
from sartor.web.worker import work
from sartor.web.workspace import Workspace


def document(folder: Path) -> Path:
    file = folder / "uploads" / "tea.txt"
    file.parent.mkdir(parents=True)
    file.write_text("Tea was drunk in China long before it came to Europe.\n\nIt came by ship.\n", encoding="utf-8")
    return file


def pair(number: int, answer: str = "", accepted: bool = True) -> Pair:
    turns = [{"question": f"Q{number}", "answer": answer or f"A{number}", "quote": "q"}]
    return Pair(turns, [(0, 1)], "d.txt", "0", "", 0, 1, "q", accepted)


def test_the_price_is_told_before_any_model_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model was asked")

    monkeypatch.setattr(generating, "_embedded", never)
    asked = GenerateForm(["uploads/tea.txt"], "tea").arguments(Workspace(document(tmp_path).parent.parent))
    found = estimate(asked)
    assert found["passages"] == 1
    assert found["max_tokens_out"] > 0
    assert found["seconds"] > 0


def test_nothing_outside_and_nothing_without_consent_is_asked(tmp_path: Path) -> None:
    workspace = Workspace(document(tmp_path).parent.parent)
    for asked in (
        GenerateForm([], "tea"),
        GenerateForm(["../../etc/passwd"], "tea"),
        GenerateForm(["uploads/tea.txt"], "tea", model="/etc"),
        GenerateForm(["uploads/tea.txt"], "tea", remote=True, endpoint="http://127.0.0.1:9/v1"),
        GenerateForm(["uploads/tea.txt"], "tea", remote=True, endpoint="http://a/v1", key_env="HOME", consent=True),
    ):
        with pytest.raises(SartorError):
            asked.arguments(workspace)


def test_a_job_leaves_its_pairs_and_registers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = "drunk in China long before"
    refused = {"question": "?", "answer": "x", "quote": "-"}
    made = [{"question": "Where?", "answer": "In China.", "quote": proof}, refused]

    def model(_: str) -> Any:
        def complete(messages: list[Message]) -> Completion:
            return Completion(json.dumps(made))

        return complete

    monkeypatch.setattr(generating, "_embedded", model)
    job = Job(
        tmp_path / ".sartor" / "jobs" / "1",
        "generate",
        "tea",
        {"documents": [str(document(tmp_path))], "name": "tea", "model": "m"},
    )
    job.path.mkdir(parents=True)
    told = work(job)
    assert (told["pairs"], told["rejected"], told["failed"]) == (1, {"quote-not-found": 1}, 0)
    (kept,) = read(job)
    assert (kept.turns[0]["question"], kept.accepted) == ("Where?", True)
    assert [kept.passage[start:stop] for start, stop in kept.spans] == [proof]
    assert not (tmp_path / "data").exists()
    assert job.read("progress.json") == {"done": 1, "total": 1}


def test_what_a_person_took_and_changed_becomes_the_dataset(tmp_path: Path) -> None:
    talk = pair(5)
    talk.turns.append({"question": "More?", "answer": "Yes.", "quote": "q"})
    pairs = [pair(1), pair(2, accepted=False), pair(3, "changed "), pair(4, " "), talk]
    assert keep(pairs, "tea", tmp_path) == 3
    rows = [row for row in load("tea", tmp_path).examples if isinstance(row, Demonstration)]
    said = [["Q1", "A1"], ["Q3", "changed"], ["Q5", "A5", "More?", "Yes."]]
    assert [[message.text for message in row.messages] for row in rows] == said


def test_nothing_taken_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No pair"):
        keep([pair(1, accepted=False)], "tea", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_quotes_are_marked_once_and_nothing_is_markup() -> None:
    assert marked("<b>Tea\n</b>", [(3, 6)]) == "&lt;b&gt;<mark>Tea</mark>\n&lt;/b&gt;"
    assert marked("abcdef", [(2, 5), (1, 3), (0, 0)]) == "a<mark>bc</mark><mark>de</mark>f"
    assert marked("a\u202eb", []) == "a⟨U+202E⟩b"


def test_pairs_of_a_job_that_left_none(tmp_path: Path) -> None:
    assert read(Job(tmp_path, "generate", "x", {})) == []


def test_two_clicks_and_two_windows_start_one_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(document(tmp_path).parent.parent)
    jobs = Jobs(tmp_path / "jobs", tmp_path)
    monkeypatch.setattr(jobs, "advance", lambda: None)

    class Window(GenerateView):
        """A window without its widgets."""

        def __init__(self) -> None:
            self.workspace, self.jobs = workspace, jobs
            self.form = GenerateForm(["uploads/tea.txt"], "tea")

        def _show_error(self, error: SartorError | None) -> None:
            assert error is None

        async def _redraw(self) -> None:
            pass

    async def clicks() -> None:
        window = Window()
        await asyncio.gather(*(one._start() for one in (window, window, Window(), window)))

    asyncio.run(clicks())
    assert [job.kind for job in jobs.all()] == ["generate"]
