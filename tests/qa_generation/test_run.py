"""A generation run: one order with any number of workers; ended by request, number, money or a dead endpoint."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import ConfigError, EndpointError
from sartor.base.types import Completion, Message
from sartor.qa_generation.budget import BudgetExceeded
from sartor.qa_generation.concurrency_limiter import ConcurrencyLimiter
from sartor.qa_generation.documents import read_document
from sartor.qa_generation.journal import Journal
from sartor.qa_generation.pairs import Passage
from sartor.qa_generation.prompt_files import Prompt, read_prompt
from sartor.qa_generation.requests_plan import GenerationPlan, estimate, passages_of, spread_order
from sartor.qa_generation.run import MAX_FAILURES_IN_A_ROW, Complete, GenerationOutcome, Hooks, generate
from sartor.qa_generation.settings import EndpointSettings, QAGenerationSettings

NAMES = (
    "Netherfield",
    "Longbourn",
    "Pemberley",
    "Rosings",
    "Hunsford",
    "Meryton",
    "Lambton",
    "Brighton",
    "Derby",
    "Kympton",
    "Ramsgate",
    "Gracechurch",
)
COUNT = len(NAMES)
SENTENCE = "The door of {name} was painted red by Mary."
PASSAGES = [Passage("a.txt", "00", "One", n * 60, n * 60 + 50, SENTENCE.format(name=NAMES[n])) for n in range(COUNT)]


def number(messages: Sequence[Message]) -> int:
    return next(n for n, name in enumerate(NAMES) if f"door of {name} was" in messages[-1].text)


def reply(n: int) -> Completion:
    words = (f"Who painted {NAMES[n]}?", f"What is the color of the door at {NAMES[n]}?", "Is it more than two?")
    return Completion(json.dumps([{"question": q, "answer": "Red.", "quote": "painted red"} for q in words]), 7, 11)


def answering(messages: Sequence[Message]) -> Completion:
    return reply(number(messages))


def plan(prompt: Prompt | None = None, passages: Sequence[Passage] = PASSAGES, **settings: Any) -> GenerationPlan:
    values = {"name": "made", "endpoint": EndpointSettings("http://x/v1", "m"), "workers": 1, **settings}
    return GenerationPlan(QAGenerationSettings(**values), tuple(passages), prompt or read_prompt("en"))


def asked(
    tmp_path: Path, complete: Complete = answering, stop: threading.Event | None = None, **settings: Any
) -> GenerationOutcome:
    hooks = Hooks(stop or threading.Event())
    return generate(plan(**settings), complete, Journal(tmp_path / "j.jsonl"), hooks)


@pytest.mark.parametrize("pairs", [None, 17])
def test_the_pairs_are_the_same_whichever_answer_comes_first(tmp_path: Path, pairs: int | None) -> None:
    overtaken = threading.Event()

    def late(messages: Sequence[Message]) -> Completion:
        if (n := number(messages)) % 4 == 0:  # until another answer has overtaken it
            overtaken.wait(0.5)
        else:
            overtaken.set()
        return reply(n)

    one = asked(tmp_path / "one", pairs=pairs)
    many = asked(tmp_path / "many", late, pairs=pairs, workers=4)
    assert [pair.question for pair in many.pairs] == [pair.question for pair in one.pairs]
    assert len(one.pairs) == (24 if pairs is None else pairs)
    assert (one.tokens_in, one.tokens_out) == (one.requests * 7, one.requests * 11)


def test_wanted_pairs_are_spread_over_the_documents_and_no_more_is_asked(tmp_path: Path) -> None:
    found = asked(tmp_path, pairs=4)
    assert (len(found.pairs), found.requests, found.stopped) == (4, 4, "enough")
    assert {pair.passage.start // 60 // 3 for pair in found.pairs} == {0, 1, 2, 3}


def test_too_few_pairs_are_asked_for_again_naming_what_was_asked(tmp_path: Path) -> None:
    prompts: list[str] = []

    def stingy(messages: Sequence[Message]) -> Completion:
        prompts.append(messages[-1].text)
        first = "Ask something else" not in messages[-1].text
        n = number(messages)
        question = f"Who painted {NAMES[n]}?" if first else f"What is the color of the door at {NAMES[n]}?"
        return Completion(json.dumps([{"question": question, "answer": "Red.", "quote": "painted red"}]))

    found = asked(tmp_path, stingy, pairs=20)
    assert len(found.pairs) == 20
    assert "- Who painted Netherfield?" in next(text for text in prompts if "something else" in text)


def test_stop_keeps_what_is_in_flight_and_a_second_call_goes_on(tmp_path: Path) -> None:
    stop = threading.Event()

    def until_three(messages: Sequence[Message]) -> Completion:
        if number(messages) == 3:
            stop.set()
        return answering(messages)

    found = asked(tmp_path, until_three, stop=stop)
    assert (found.stopped, found.requests, found.left, len(found.failed)) == ("requested", 4, COUNT - 4, 0)
    assert len(found.pairs) == 8
    rest = asked(tmp_path)
    assert (rest.requests, rest.reused, rest.stopped) == (COUNT - 4, 4, None)


def test_a_dead_endpoint_ends_the_run_and_failures_are_never_counted_as_done(tmp_path: Path) -> None:
    def dies(messages: Sequence[Message]) -> Completion:
        if number(messages) >= 4:
            raise EndpointError("It is gone.")
        return answering(messages)

    found = asked(tmp_path, dies)
    assert (found.stopped, found.requests, len(found.failed)) == ("endpoint", 4, MAX_FAILURES_IN_A_ROW)
    assert (found.failed[0][0], str(found.failed[0][1])) == (PASSAGES[4], "It is gone.")
    assert asked(tmp_path).reused == 4


def test_the_cap_ends_the_run_with_what_there_is(tmp_path: Path) -> None:
    def poor(messages: Sequence[Message]) -> Completion:
        if number(messages) == 2:
            raise BudgetExceeded("No money.")
        return answering(messages)

    found = asked(tmp_path, poor)
    assert (found.stopped, len(found.pairs), found.failed) == ("cap", 4, ())


def test_a_run_that_breaks_keeps_the_answers_that_were_paid_for(tmp_path: Path) -> None:
    paid = threading.Event()

    def breaks(messages: Sequence[Message]) -> Completion:
        if number(messages) == 1:
            paid.wait()
            raise RuntimeError("broken")
        if number(messages) == 0:
            threading.Timer(0.05, paid.set).start()
        return answering(messages)

    with pytest.raises(RuntimeError, match="broken"):
        asked(tmp_path, breaks, workers=3)
    kept = Journal(tmp_path / "j.jsonl")
    keys = (tmp_path / "j.jsonl").read_text(encoding="utf-8").count('"key"')
    assert keys >= 1
    assert asked(tmp_path).reused == keys
    assert kept.get("nothing") is None


def test_a_small_models_questions_on_one_passage_become_a_conversation(tmp_path: Path) -> None:
    text = " ".join(
        f"The {name} was painted {color} by Mary in spring."
        for name, color in (("old door", "red"), ("tall tower", "blue"), ("wide bridge", "green"))
    )
    passage = Passage("a.txt", "00", "One", 0, len(text), text)

    def small(messages: Sequence[Message]) -> Completion:
        thing = messages[-1].text.split("The ")[1].split(" was")[0]
        return Completion(f"Q: Who painted the {thing}?\nA: The {thing} was painted by Mary.")

    prompt = read_prompt("en", small=True, multi_turn=True)
    found = generate(plan(prompt, [passage], multi_turn=True), small, Journal(tmp_path / "j.jsonl"))
    assert [len(pair.turns) for pair in found.pairs] == [3]
    assert all(text[a:b] == turn.quote for turn, (a, b) in zip(found.pairs[0].turns, found.pairs[0].spans, strict=True))


def test_the_estimate_counts_what_is_not_in_the_journal(tmp_path: Path) -> None:
    asked(tmp_path, pairs=4)
    endpoint = EndpointSettings("http://x/v1", "m", price_in=1.0, price_out=2.0)
    found = estimate(plan(per_chunk=1, endpoint=endpoint), Journal(tmp_path / "j.jsonl"))
    assert (found.calls, found.reused) == (COUNT - 4, 4)
    assert found.max_cost == (found.max_tokens_in + 2 * found.max_tokens_out) / 1e6
    assert found.cost < found.max_cost
    assert (found.seconds, found.basis) == ((COUNT - 4) * 6.0, "assumed")
    assert (found.measured(7.5).seconds, found.measured(7.5).basis) == (7.5, "measured")


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 100])
def test_spread_holds_each_place_once(count: int) -> None:
    assert sorted(spread_order(count)) == list(range(count))


def test_several_documents_are_told_apart_by_their_sections(tmp_path: Path) -> None:
    for name in ("a", "b"):
        text = f"Chapter 1\n\nThe door of {name} was red.\n\nChapter 2\n\nThe tower of {name} was tall.\n"
        (tmp_path / f"{name}.txt").write_text(text)
    found = passages_of([read_document(tmp_path / f"{name}.txt") for name in ("a", "b")], 400)
    assert [passage.section for passage in found] == [
        "a.txt: Chapter 1",
        "a.txt: Chapter 2",
        "b.txt: Chapter 1",
        "b.txt: Chapter 2",
    ]


def test_the_limit_grows_until_the_server_is_busy_then_halves_once() -> None:
    clock = [0.0]
    limiter = ConcurrencyLimiter(8, lambda: clock[0])
    for count in (1, 2, 4, 8):
        tickets = [limiter.acquire() for _ in range(min(count, int(limiter.limit)))]
        for ticket in tickets:
            limiter.release(ticket, "good")
    assert limiter.limit == 8
    tickets = [limiter.acquire() for _ in range(8)]
    for ticket in tickets:
        limiter.release(ticket, "busy", 3.0)
    assert limiter.limit == 4, "one refusal for all that were in flight"
    assert limiter.hold_s() == 3.0
    clock[0] = 2.5
    assert limiter.hold_s() == 0.5
    for _ in range(4):
        limiter.release(limiter.acquire(), "good")
    assert 4.8 < limiter.limit < 5.2, "one more for each round"
    assert limiter.peak == 8


def test_a_prompt_of_ones_own_is_filled_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text('[system]\nBe kind. {style}\n[user]\n{{"a": {pairs}}} {passage}\n')
    style = tmp_path / "s.txt"
    style.write_text("As an exam.\n")
    one, two = read_prompt("en", file, style).messages("A door.", pairs=3)
    assert (one, two) == (Message("system", "Be kind. As an exam."), Message("user", '{"a": 3} A door.'))
    ours = read_prompt("en", style=style).messages("A door.")
    assert "As an exam." in ours[-1].text
    file.write_text("{pasage}")
    with pytest.raises(Exception, match="pasage"):
        read_prompt("en", file)
    file.write_text("Write something.")
    with pytest.raises(Exception, match="asks about nothing"):
        read_prompt("en", file)


def test_a_text_is_not_read_as_a_place() -> None:
    prompt = Prompt((("user", "{passage}"),))
    assert prompt.messages("{section} {{x}}", section="no")[0].text == "{section} {{x}}"


def test_a_cap_without_prices_and_a_key_that_is_not_set_are_refused(tmp_path: Path) -> None:
    from sartor.api.generating import generate as make

    (tmp_path / "d.txt").write_text("The door was red.")
    with pytest.raises(ConfigError, match="needs prices"):
        make([tmp_path / "d.txt"], "made", dataset_dir=tmp_path, max_cost=1.0, endpoint="http://127.0.0.1:1/v1")
    for option in ({"price_in": 1.0}, {"max_cost": 1.0, "price_out": 1.0}):
        with pytest.raises(ConfigError, match="is for an endpoint"):
            make([tmp_path / "d.txt"], "made", dataset_dir=tmp_path, **option)
    with pytest.raises(ConfigError, match="SARTOR_NO_SUCH_KEY"):
        make([tmp_path / "d.txt"], "made", dataset_dir=tmp_path, key_env="SARTOR_NO_SUCH_KEY")


def test_advice_is_given_only_where_it_has_an_effect(tmp_path: Path) -> None:
    """The small model's conversations have a fixed length; any other request asks for `per_chunk` questions."""
    assert asked(tmp_path / "one", pairs=50).per_passage_counts
    made = plan(read_prompt("en", small=True), multi_turn=True, per_chunk=1, pairs=50)
    again = plan(read_prompt("en", small=True), multi_turn=True, per_chunk=5, pairs=50)
    assert made.pairs_per_passage == again.pairs_per_passage
    found = generate(made, answering, Journal(tmp_path / "j.jsonl"), Hooks())
    assert not found.per_passage_counts
