"""The judge sees both orders, counts failures apart, and is compared with human labels."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import httpx
import pytest

from sartor.base.errors import EndpointError
from sartor.base.openai_client import Address, ChatClient
from sartor.evaluation.judge import AnswerPair, endpoint_judge, judge

PAIRS = [AnswerPair(f"d:{n}", f"Question {n}?", f"base {n}", f"tuned {n}", "reference") for n in range(1, 11)]


def answers(prompt: str) -> tuple[str, str]:
    found = re.findall(r"<answer_[12]>\n(.*?)\n</answer_[12]>", prompt, re.DOTALL)
    return found[0], found[1]


def test_a_winner_in_both_orders_wins() -> None:
    judged = judge(lambda prompt: "1" if answers(prompt)[0].startswith("tuned") else "2", PAIRS)
    assert judged.counts == {"tuned": 10, "base": 0, "tie": 0, "failed": 0, "swayed_by_order": 0}
    assert judged.difference is not None
    assert judged.difference.difference == 1.0


def test_a_judge_that_likes_the_first_answer_proves_nothing() -> None:
    judged = judge(lambda prompt: "I think it is 1", PAIRS)
    assert judged.counts == {"tuned": 0, "base": 0, "tie": 10, "failed": 0, "swayed_by_order": 10}
    assert judged.to_json()["mean"] == 0.0


def test_ten_answers_of_one_section_are_one_opinion() -> None:
    """The judge's verdict has the guarantees of every other: sections are units."""
    alone = judge(lambda prompt: "1" if answers(prompt)[0].startswith("tuned") else "2", PAIRS)
    together = judge(
        lambda prompt: "1" if answers(prompt)[0].startswith("tuned") else "2",
        [replace(pair, section=f"chapter {n % 2}") for n, pair in enumerate(PAIRS)],
    )
    assert alone.to_json()["outcome"] == "better"
    assert together.to_json()["outcome"] == "not_proven"
    assert "2 sections" in str(together.to_json()["refusal"])


def test_failures_are_counted_apart_and_never_as_a_loss() -> None:
    def ask(prompt: str) -> str:
        number = int(re.findall(r"Question (\d+)", prompt)[0])
        if number == 3:
            raise EndpointError("timed out")
        if number == 4:
            return "I cannot say."
        return "<think>maybe 1 or 2</think> TIE" if number == 5 else ("2" if answers(prompt)[0][0] == "b" else "1")

    judged = judge(ask, PAIRS)
    assert judged.counts == {"tuned": 7, "base": 0, "tie": 1, "failed": 2, "swayed_by_order": 0}
    assert [row.id for row in judged.rows if row.winner is None] == ["d:3", "d:4"]
    assert judged.difference is not None
    assert judged.difference.n == 8
    assert json.dumps(judged.to_json(), allow_nan=False)


def test_a_dead_endpoint_ends_the_judging() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        raise EndpointError("nobody there")

    with pytest.raises(EndpointError, match="failed on the first rows: nobody there"):
        judge(ask, PAIRS * 20, workers=1)
    assert len(asked) < 20


def test_agreement_with_people_by_hand() -> None:
    def ask(prompt: str) -> str:  # tuned wins rows 1–5, base the others
        number = int(re.findall(r"Question (\d+)", prompt)[0])
        return "1" if answers(prompt)[0].startswith("tuned") == (number <= 5) else "2"

    labels = {f"d:{n}": "tuned" if n <= 4 else "base" for n in range(1, 11)}
    judged = judge(ask, PAIRS, labels=labels)  # type: ignore[arg-type]
    assert judged.agreement == 0.9
    # chance = 0.5 · 0.4 + 0.5 · 0.6 = 0.5; kappa = 0.4 / 0.5
    assert judged.kappa == pytest.approx(0.8)


def test_the_judge_decodes_greedily_behind_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, object]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={"choices": [{"message": {"content": "2"}}]})

    http = httpx.Client(transport=httpx.MockTransport(handle))
    monkeypatch.setattr(ChatClient, "_http", http)
    assert endpoint_judge(Address("http://judge/v1/", "m"), None)("x") == "2"
    assert sent == [{"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 512, "temperature": 0}]
