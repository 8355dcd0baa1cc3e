"""Questions with checkable answers, asked before and after training to measure forgetting."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

from sartor.base.forecast import BatchForecast, ShowsTimeLeft
from sartor.base.settings import GenerationSettings
from sartor.evaluation.difference import Measure, compare_rows
from sartor.evaluation.verdict import Forgetting
from sartor.inference.engine import Answer, Engine
from sartor.inference.weights import WeightSet

ANSWER_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Question:
    """One question; an answer that contains one of `accepts` is right."""

    id: str
    topic: str
    question: str
    accepts: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        """Whether the answer contains an accepted text: as a whole word or number; Chinese text anywhere."""
        plain = _plain(answer)
        return any(_contains(_plain(accepted), plain) for accepted in self.accepts)


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer to a question."""

    question: Question
    text: str

    @property
    def right(self) -> bool:
        return self.question.is_right(self.text)


def questions(name: str = "general") -> tuple[Question, ...]:
    """The probe in `<name>.jsonl` of this folder."""
    text = (resources.files(__name__) / f"{name}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return tuple(Question(row["id"], row["topic"], row["question"], tuple(row["accepts"])) for row in rows)


def ask(
    engine: Engine,
    probe: Sequence[Question],
    weights: WeightSet = "tuned",
    progress: Callable[[int, int | None], None] | None = None,
    forecast: BatchForecast | None = None,
) -> list[Reply]:
    """Greedy answers, in order. Raises: PromptError when the template rejects a single question."""
    done = 0
    if forecast:
        forecast.begin(len(probe))

    def on_done(number: int, answer: Answer) -> None:
        nonlocal done
        done += 1
        if forecast:
            forecast.answered(answer.tokens)
            if isinstance(progress, ShowsTimeLeft):
                progress.time_left(forecast.left_s())
        if progress:
            progress(done, len(probe))

    turns = [[{"role": "user", "content": question.question}] for question in probe]
    answers = engine.generate(turns, GenerationSettings(max_new_tokens=ANSWER_TOKENS), weights=weights, on_done=on_done)
    return [Reply(question, answer.text) for question, answer in zip(probe, answers, strict=True)]


def forgetting(base: Sequence[Reply], tuned: Sequence[Reply]) -> Forgetting:
    """The change in the percentage of right answers, with interval and p, and the questions lost and gained."""
    before, after = ([100.0 * reply.right for reply in replies] for replies in (base, tuned))
    difference = compare_rows(before, after, Measure("general-probe"), ids=[reply.question.id for reply in base])
    pairs = list(zip(base, tuned, strict=True))
    return Forgetting(
        difference,
        lost=tuple(b.question.id for b, t in pairs if b.right and not t.right),
        gained=tuple(b.question.id for b, t in pairs if t.right and not b.right),
    )


def _plain(text: str) -> str:
    """NFKC-normalized (full-width as half-width, ₂ as 2), case-folded, runs of whitespace as one space."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).casefold()


def _contains(accepted: str, answer: str) -> bool:
    if not accepted.isascii():
        return accepted in answer
    return re.search(rf"(?<![a-z0-9])(?<![0-9][.,]){re.escape(accepted)}(?![a-z0-9]|[.,][0-9])", answer) is not None
