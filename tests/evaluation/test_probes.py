"""The general probe: sixty questions in two languages, right answers found and wrong ones not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sartor.evaluation.probes import Question, Reply, ask, forgetting, questions
from sartor.inference.engine import Engine


def test_sixty_different_questions_half_of_them_chinese() -> None:
    probe = questions()
    assert len({q.question for q in probe}) == len({q.id for q in probe}) == 60
    assert Counter(q.id[:2] for q in probe) == {"en": 30, "zh": 30}
    assert all(q.is_right(accepted) for q in probe for accepted in q.accepts)
    told = [q.id for q in probe if q.is_right(q.question)]
    # Only what is chosen from the question, or repeated, stands in it.
    assert told == ["en-29", "en-30", "zh-28", "zh-29", "zh-30"]


@pytest.mark.parametrize(
    ("accepts", "answer", "right"),
    [
        (["5"], "2 + 3 = 5.", True),
        (["5"], "The answer is 15", False),
        (["5"], "5.5", False),
        (["56"], "７ × ８ ＝ ５６", True),
        (["H2O"], "Water is H₂O.", True),
        (["H2O"], "h2o", True),
        (["D"], "The letter d!", True),
        (["D"], "Dog", False),
        (["北京"], "中国的首都是北京。", True),
        (["东"], "西边", False),
        (["Paris"], "", False),
    ],
)
def test_answers_are_read_by_whole_words(accepts: list[str], answer: str, right: bool) -> None:
    assert Question("x", "t", "q", tuple(accepts)).is_right(answer) is right


def test_what_is_lost_and_gained_is_named_with_its_interval() -> None:
    probe = questions()
    base = [Reply(q, q.accepts[0] if n % 2 else "?") for n, q in enumerate(probe)]
    tuned = [Reply(q, q.accepts[0] if (n % 2 and n > 20) or n == 0 else "?") for n, q in enumerate(probe)]
    found = forgetting(base, tuned)
    assert found.gained == ("en-01",)
    assert len(found.lost) == 10
    assert found.difference.difference == pytest.approx(100 * (1 - 10) / 60)
    assert found.difference.n == 60
    assert found.difference.method == "mcnemar|exact+score"
    assert found.difference.base == 50.0
    assert found.difference.outcome == "worse"


def test_both_weights_are_asked_in_order(tiny_model_dir: Path) -> None:
    engine = Engine.load(str(tiny_model_dir), dtype="float32", device="cpu")
    heard: list[int] = []
    replies = ask(engine, questions()[:3], "base", progress=lambda done, total: heard.append(done))
    assert [reply.question.id for reply in replies] == ["en-01", "en-02", "en-03"]
    assert heard == [1, 2, 3]
