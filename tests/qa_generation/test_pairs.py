"""Pairs are grounded or refused with a reason, paid for once, and written so that Excel runs nothing."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from sartor.base.errors import DataError, EndpointError
from sartor.base.types import Completion, Message
from sartor.data.import_file import import_file
from sartor.data.load import load
from sartor.data.split import split_groups
from sartor.qa_generation.journal import Journal
from sartor.qa_generation.output import check_name, write
from sartor.qa_generation.pairs import DuplicateFilter, GroundedPair, Passage, Turn, fold, locate, parse
from sartor.qa_generation.prompt_files import language_of, read_prompt
from sartor.qa_generation.requests_plan import GenerationPlan
from sartor.qa_generation.run import generate
from sartor.qa_generation.settings import QAGenerationSettings

PASSAGES = [Passage("a.txt", "00", "One", n, n + 20, f"The {n}th\n  door was red.") for n in range(4)]


def plan(per_chunk: int | None = None) -> GenerationPlan:
    settings = QAGenerationSettings(name="made", model="m", per_chunk=per_chunk)
    return GenerationPlan(settings, tuple(PASSAGES), read_prompt("en"))


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
        made = generate(plan(per_chunk=1), complete, Journal(tmp_path / "j.jsonl"))
        return len(made.pairs), len(made.failed), made.requests, made.reused

    with pytest.raises(RuntimeError, match="killed"):
        run()
    with (tmp_path / "j.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"key": "torn')
    assert run() == (3, 1, 1, 2)
    assert run() == (4, 0, 1, 3)
    assert paid == ["0", "1", "2", "failed", "3"]


def test_repeated_questions_are_dropped_with_the_reason(tmp_path: Path) -> None:
    same = Completion(json.dumps([{"question": "Which color?", "answer": "Red.", "quote": "door was red"}]))
    made = generate(plan(), lambda _: same, Journal(tmp_path / "j"))
    assert [pair.passage for pair in made.pairs] == PASSAGES[:1]
    assert [refused.reason for refused in made.rejected] == ["near-duplicate"] * 3


def test_repeats_are_found_by_exact_jaccard() -> None:
    def grams(text: str) -> set[str]:
        text = fold(text).lower()
        return {text[n : n + 2] for n in range(len(text) - 1)}

    words = [
        "who",
        "what",
        "where",
        "built",
        "painted",
        "wrote",
        "the",
        "a",
        "old",
        "tower",
        "of",
        "in",
        "1844",
        "1921",
    ]
    draw = random.Random(3)
    texts: list[str] = []
    for _ in range(600):
        text = " ".join(draw.choices(words, k=draw.randint(1, 9)))
        texts.append(text if draw.random() < 0.6 or not texts else draw.choice(texts) + draw.choice(["", "?", " a"]))
    again = DuplicateFilter()
    kept: list[str] = []
    found = 0
    for text in texts:
        mine = grams(text)
        near = any(
            fold(text).lower() == fold(other).lower()
            or (min(len(mine), len(grams(other))) >= 8 and len(mine & grams(other)) >= 0.85 * len(mine | grams(other)))
            for other in kept
        )
        assert again(text) == near, text
        found += near
        if not near:
            kept.append(text)
    assert found > 50


def test_the_csv_is_safe_in_excel_and_the_dataset_loads(tmp_path: Path) -> None:
    pairs, _ = parse(reply(0), PASSAGES[0], 1)
    table, _ = write(pairs, "made", tmp_path)
    content = table.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    assert next(iter(csv.DictReader(content.decode("utf-8-sig").splitlines())))["question"] == "'=Which 0?"
    loaded = load("made", tmp_path)
    assert loaded.examples[0].origin.section == "One"
    assert loaded.examples[0].messages[0].text == "=Which 0?"


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
    with pytest.raises(DataError, match="Invalid dataset name"):
        check_name(name)


def test_lines_of_questions_and_answers_are_proved_by_the_sentence_that_holds_the_answer() -> None:
    text = "The mill burned in 1902. Sarah Cook built it anew.\n\n老磨坊在1902年烧毁。王秀兰重建了它。"
    passage = Passage("a.txt", "00", "One", 0, len(text), text)
    answer = "Q: Who built the mill anew?\nA: Sarah Cook built it anew.\n\n**Q:** When?\n**A:** In 1903.\nQ: cut"
    good, bad = parse(answer, passage, 5)
    assert [(pair.question, pair.quote) for pair in good] == [("Who built the mill anew?", "Sarah Cook built it anew.")]
    assert [refused.reason for refused in bad] == ["not-grounded", "incomplete"]
    (pair,) = parse("问：谁重建了磨坊？\n答：王秀兰重建了它。", passage, 1)[0]
    assert pair.quote == "王秀兰重建了它。"
    (pair,) = parse("Q: When?\nA: Long ago.\nQuote: burned in  1902", passage, 1)[0]
    assert [text[a:b] for a, b in pair.spans] == ["burned in 1902"]
    assert parse("Q: When?\nA: In 1902.\nQuote: burned in 1903", passage, 1)[1][0].reason == "quote-not-found"


def test_a_quote_is_found_whatever_its_white_space() -> None:
    text = "It was\n  a (dark)\u3000night."
    start, stop = locate("was a (dark) night", text) or (0, 0)
    assert text[start:stop] == "was\n  a (dark)\u3000night"
    assert locate("a dark night", text) is None
    assert locate("  ", text) is None


TURNS = [
    {"question": "Which?", "answer": "=Red.", "quote": "door was red"},
    {"question": "Which one?", "answer": "The 0th.", "quote": "The 0th door"},
]


def test_conversations_keep_a_quote_for_each_turn() -> None:
    (pair,) = parse(json.dumps([{"turns": TURNS}]), PASSAGES[0], 1, multi_turn=True)[0]
    assert pair.more_turns == (Turn("Which one?", "The 0th.", "The 0th door"),)
    assert [PASSAGES[0].text[a:b] for a, b in pair.spans] == ["door was red", "The 0th\n  door"]
    bad = {"question": "And?", "answer": "x", "quote": "nowhere"}
    (kept,), refused = parse(json.dumps({"turns": [*TURNS, bad, TURNS[0]]}), PASSAGES[0], 1, multi_turn=True)
    assert len(kept.turns) == 2, "what comes after a refused turn may rest on it"
    assert refused[0].reason == "quote-not-found"
    none, refused = parse(json.dumps([{"turns": TURNS[:1]}]), PASSAGES[0], 1, multi_turn=True)
    assert (none, refused[0].reason) == ([], "too-few-turns")


RISKY = ["=1+1", "+49", "-x", "@me", "'=1", "''-", "'quoted'", 'a,b;c\n"d"', "王", "\tTab"]


@pytest.mark.parametrize("conversation", [False, True])
def test_what_is_imported_from_the_table_is_what_was_generated(tmp_path: Path, conversation: bool) -> None:
    later = (Turn("-And?", "=So.", "door"),) if conversation else ()
    pairs = [GroundedPair(text, text, text, PASSAGES[n % 4], later) for n, text in enumerate(RISKY)]
    table, rows = write(pairs, "made", tmp_path / "a")
    with table.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.reader(file):
            assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in row)
    imported = import_file(table, "made", dataset_dir=tmp_path / "b")
    assert not imported.loaded.ledger.skipped
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (rows, imported.dataset_file))
    for one, other in zip(before, after, strict=True):
        for turns in (one["conversations"], other["conversations"]):
            turns[:] = [turn["value"].strip() for turn in turns]
        assert one == other


def test_sections_split_whole(tmp_path: Path) -> None:
    places = [Passage("a.txt", "00", f"Chapter {n}", 0, 4, "door") for n in (1, 2, 3) for _ in range(3)]
    write([GroundedPair(f"q{n}", "a", "door", place) for n, place in enumerate(places)], "made", tmp_path)
    examples = load("made", tmp_path).examples
    groups = {example.origin.id: str(example.origin.section) for example in examples}
    parted = split_groups(examples, groups, 3, seed=1)
    assert len(parted.held_out) == 3
    assert not {e.origin.section for e in parted.held_out} & {e.origin.section for e in parted.train}


def test_the_language_is_the_documents() -> None:
    assert [language_of([text]) for text in ("Plain text.", "第一回 甄士隐", "The word 道 is old.")] == [
        "en",
        "zh",
        "en",
    ]
