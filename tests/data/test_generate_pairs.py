"""Pairs are grounded or refused with a reason, paid for once, and written so that Excel runs nothing."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sartor.base.errors import DataError, EndpointError
from sartor.base.types import Message
from sartor.data.generate.journal import Journal
from sartor.data.generate.pairs import Grounded, Passage, parse, without_repeats
from sartor.data.generate.run import Completion, generate, read_style
from sartor.data.generate.writing import check_name, write
from sartor.data.load import load

PASSAGES = [Passage("a.txt", "00", "One", n, n + 20, f"The {n}th\n  door was red.") for n in range(4)]


def reply(n: int) -> str:
    return json.dumps([{"question": f"=Which {n}?", "answer": "Red.", "quote": f"The {n}th door"}])


@pytest.mark.parametrize(
    ("answer", "good", "reasons"),
    [
        (f"Sure!\n```json\n{reply(0)}\n```", 1, []),
        ('{"pairs": ' + reply(0) + "}", 1, []),
        (reply(0)[:-1] + ', {"question": "cut', 1, []),
        ("<html>502</html>", 0, ["no-json"]),
        ('[{"question": "q", "answer": 3, "quote": "door"}]', 0, ["incomplete"]),
        ('[{"question": "q", "answer": "a", "quote": "The door"}]', 0, ["quote-not-found"]),
    ],
)
def test_answers_are_parsed_leniently_and_quotes_strictly(answer: str, good: int, reasons: list[str]) -> None:
    found, bad = parse(answer, PASSAGES[0], 5)
    assert len(found) == good
    assert [refused.reason for refused in bad] == reasons


def test_a_killed_run_goes_on_and_never_pays_twice(tmp_path: Path) -> None:
    paid: list[str] = []
    killed: list[int] = []

    def complete(messages: Sequence[Message]) -> Completion:
        n = next(n for n in range(4) if f"The {n}th" in messages[0].text)
        if n == 2 and not killed:
            killed.append(n)
            raise RuntimeError("killed")
        if n == 3 and len(paid) == 3:
            paid.append("failed")
            raise EndpointError("no")
        paid.append(str(n))
        return Completion(reply(n))

    def run() -> tuple[int, int, int, int]:
        made = generate(
            PASSAGES, complete, Journal(tmp_path / "j.jsonl"), model="m", prompt=read_style("en"), per_chunk=1
        )
        return len(made.pairs), len(made.failed), made.asked, made.reused

    with pytest.raises(RuntimeError, match="killed"):
        run()
    with (tmp_path / "j.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"key": "torn')
    assert run() == (3, 1, 1, 2)
    assert run() == (4, 0, 1, 3)
    assert paid == ["0", "1", "2", "failed", "3"]


def test_repeated_questions_are_dropped_with_the_reason() -> None:
    pairs = [Grounded("q", "a", "door", PASSAGES[0]), Grounded("q", "b", "door", PASSAGES[1])]
    kept, dropped = without_repeats(pairs, lambda _: {1})
    assert kept == pairs[:1]
    assert dropped[0].reason == "near-duplicate"


def test_the_csv_is_safe_in_excel_and_the_dataset_loads(tmp_path: Path) -> None:
    pairs, _ = parse(reply(0), PASSAGES[0], 1)
    table, _ = write(pairs, "made", tmp_path)
    content = table.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    assert next(iter(csv.DictReader(content.decode("utf-8-sig").splitlines())))["question"] == "'=Which 0?"
    loaded = load("made", tmp_path)
    assert loaded.examples[0].origin.section == "One"
    assert loaded.examples[0].messages[0].text == "=Which 0?"


def test_a_style_must_name_the_passage(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("Write {pairs} questions.", encoding="utf-8")
    with pytest.raises(DataError, match="does not fit"):
        read_style("en", tmp_path / "s.txt")
    assert "{passage}" in read_style("zh")


def test_a_table_edited_by_hand_is_never_written_over(tmp_path: Path) -> None:
    pairs, _ = parse(reply(0), PASSAGES[0], 1)
    table, _ = write(pairs, "made", tmp_path)
    write(pairs, "made", tmp_path)
    assert not (tmp_path / ".trash").exists()
    table.write_text("mine", encoding="utf-8")
    write(pairs, "made", tmp_path)
    assert [p.read_text(encoding="utf-8") for p in (tmp_path / ".trash").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["../up", ".made", "a b"])
def test_a_bad_name_is_refused_before_anything_is_paid(name: str) -> None:
    with pytest.raises(DataError, match="no name"):
        check_name(name)
