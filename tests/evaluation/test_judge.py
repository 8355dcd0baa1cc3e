"""The judge hears both orders, counts failures apart, and is held beside people's labels; odd endpoints are named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import httpx
import pytest

from sartor.base.errors import ConfigError, EndpointError
from sartor.evaluation.judge import ATTEMPTS, AnswerPair, Endpoint, judge

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

    with pytest.raises(EndpointError, match="failed from the start: nobody there"):
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


def endpoint(handle: Callable[[httpx.Request], httpx.Response], waits: list[float]) -> Endpoint:
    return Endpoint("http://judge/v1/", "m", transport=httpx.MockTransport(handle), sleep=waits.append)


def test_a_busy_endpoint_is_waited_for_as_long_as_it_says() -> None:
    waits: list[float] = []
    replies = iter(
        [
            httpx.Response(429, headers={"retry-after": "7"}),
            httpx.Response(503),
            httpx.Response(200, json={"choices": [{"message": {"content": "2"}}]}),
        ]
    )
    assert endpoint(lambda request: next(replies), waits)("x") == "2"
    assert waits == [7.0, 14.0]


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        (lambda request: httpx.Response(429), "status 429"),
        (lambda request: httpx.Response(200, html="<html>login</html>"), "no chat completion \\(text/html"),
        (lambda request: httpx.Response(401, text="bad key"), "Status 401: bad key"),
        (lambda request: (_ for _ in ()).throw(httpx.ReadTimeout("slow")), "ReadTimeout"),
        (lambda request: httpx.Response(200, json={"choices": []}), "no chat completion"),
    ],
)
def test_an_odd_endpoint_is_named(handle: Callable[[httpx.Request], httpx.Response], says: str) -> None:
    waits: list[float] = []
    with pytest.raises(EndpointError, match=says):
        endpoint(handle, waits)("x")
    assert len(waits) in (0, ATTEMPTS - 1)


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="JUDGE_KEY"):
        Endpoint("http://judge/v1", "m", "${JUDGE_KEY}")
    monkeypatch.setenv("JUDGE_KEY", "abc")
    assert Endpoint("http://judge/v1", "m", "${JUDGE_KEY}").http.headers["authorization"] == "Bearer abc"
