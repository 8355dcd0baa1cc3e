"""A model's answer to grounded question–answer pairs; each that is refused has its reason; knows no files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sartor.qa_generation.chunks import sentences_of

Reason = Literal["no-json", "incomplete", "quote-not-found", "not-grounded", "too-few-turns", "near-duplicate"]
GROUNDED = 0.7
"""So large a part of a plain answer's words must stand in one sentence of the passage; that sentence is the quote."""
PLAIN = re.compile(
    r"^[ \t*#\d.]*(?P<kind>Q|A|Question|Answer|Quote|问|答|问题|答案|引文)[ \t*]*[:：][ \t*]*", re.MULTILINE | re.I
)
KIND = {
    "q": "question",
    "question": "question",
    "问": "question",
    "问题": "question",
    "a": "answer",
    "answer": "answer",
    "答": "answer",
    "答案": "answer",
    "quote": "quote",
    "引文": "quote",
}
WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the is are was were be been it its he she they them his her their this that of in on at to for by "
        "with and or as from did does do had has have not no yes there who what when where which "
        "的 了 是 在 和 他 她 它 这 那 也",
    )
)
"""Words that prove nothing."""
NEAR, SHORTEST = 0.85, 8
"""Questions with so like sets of neighbouring characters repeat each other; shorter ones must be equal."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk with its provenance; `start` and `stop` are offsets into the section's text."""

    document: str
    sha256: str
    section: str
    start: int
    stop: int
    text: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, its answer and the quote that proves it."""

    question: str
    answer: str
    quote: str


@dataclass(frozen=True, slots=True)
class GroundedPair:
    """A question and an answer whose `quote` stands in the passage, white space folded; `later` turns go on from it."""

    question: str
    answer: str
    quote: str
    passage: Passage
    more_turns: tuple[Turn, ...] = ()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All of the conversation, the first turn too."""
        return Turn(self.question, self.answer, self.quote), *self.more_turns

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where each turn's quote stands in `passage.text`: start and stop; (0, 0) where it does not."""
        return tuple(locate(turn.quote, self.passage.text) or (0, 0) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class RejectedPair:
    """What a model wrote that is not used, and why."""

    reason: Reason
    question: str
    passage: Passage


class DuplicateFilter:
    """Whether a question nearly repeats an earlier one: Jaccard of its pairs of characters, found by prefixes."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._by_gram: dict[str, list[frozenset[str]]] = {}

    def __call__(self, question: str) -> bool:
        """True for a repeat; else the question is remembered."""
        text = fold(question).lower()
        if text in self._seen:
            return True
        self._seen.add(text)
        grams = frozenset(text[place : place + 2] for place in range(len(text) - 1))
        if len(grams) < SHORTEST:
            return False
        # Sets that are so alike share one of their first few members in any fixed order.
        first = sorted(grams)[: len(grams) - int(NEAR * len(grams)) + 1]
        for gram in first:
            for other in self._by_gram.get(gram, ()):
                common = len(grams & other)
                if common >= NEAR * (len(grams) + len(other) - common):
                    return True
        for gram in first:
            self._by_gram.setdefault(gram, []).append(grams)
        return False


def parse(
    answer: str, passage: Passage, most: int, multi_turn: bool = False
) -> tuple[list[GroundedPair], list[RejectedPair]]:
    """The first `most` pairs (or conversations) of an answer, whatever stands around its JSON.

    An answer without JSON may be lines of `Q:`, `A:` and, if it likes, `Quote:` (`问：答：引文：`).
    """
    good: list[GroundedPair] = []
    bad: list[RejectedPair] = []
    values = _objects(answer) or list(_plain(answer))
    for value in values[:most]:
        turns = value.get("turns", value.get("conversation")) if multi_turn else None
        found, refused = _turns(turns if isinstance(turns, list) else [value], passage)
        bad += refused
        if multi_turn and len(found) < 2:
            bad += [] if refused else [RejectedPair("too-few-turns", found[0].question, passage)]
        elif found:
            good.append(joined(found, passage))
    return good, bad if values else [RejectedPair("no-json", "", passage)]


def joined(turns: list[Turn], passage: Passage) -> GroundedPair:
    """One conversation of the turns."""
    first = turns[0]
    return GroundedPair(first.question, first.answer, first.quote, passage, tuple(turns[1:]))


def fold(text: str) -> str:
    """Runs of white space as one space."""
    return re.sub(r"\s+", " ", text).strip()


def locate(quote: str, text: str) -> tuple[int, int] | None:
    """Where a quote stands verbatim, any white space of one as any of the other."""
    found = re.search(r"\s+".join(map(re.escape, quote.split())), text) if quote.strip() else None
    return found.span() if found else None


def _turns(values: list[Any], passage: Passage) -> tuple[list[Turn], list[RejectedPair]]:
    """The turns up to the first that is refused: later ones may rest on it."""
    found: list[Turn] = []
    for value in values:
        question, reply, quote = (_text(value, name) for name in ("question", "answer", "quote"))
        if not (question and reply):
            return found, [RejectedPair("incomplete", question, passage)]
        if not quote and isinstance(value, dict) and value.get("plain"):
            quote = find_quote(reply, passage.text)
            if not quote:
                return found, [RejectedPair("not-grounded", question, passage)]
        if not quote:
            return found, [RejectedPair("incomplete", question, passage)]
        if locate(quote, passage.text) is None:
            return found, [RejectedPair("quote-not-found", question, passage)]
        found.append(Turn(question, reply, quote))
    return found, []


def find_quote(answer: str, text: str) -> str:
    """The sentence that holds most of the answer's words; "" where none holds enough of them."""
    words = _words(answer)
    best, most = "", 0.0
    for start, stop in sentences_of(text):
        share = len(words & _words(text[start:stop])) / len(words) if words else 0.0
        if share > most:
            best, most = text[start:stop], share
    return best if most >= GROUNDED else ""


def _words(text: str) -> set[str]:
    return {word for word in WORD.findall(text.lower()) if word not in STOP_WORDS}


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found.strip() if isinstance(found, str) else ""


def _plain(answer: str) -> Iterator[dict[str, Any]]:
    """Pairs from lines that begin with `Q:` and `A:`; each text goes to the end of its line."""
    value: dict[str, Any] = {}
    for found in PLAIN.finditer(answer):
        kind = KIND[found["kind"].lower()]
        if kind == "question":
            if "question" in value:
                yield value
            value = {"plain": True}
        value.setdefault(kind, answer[found.end() :].split("\n", 1)[0].strip(" *"))
    if "question" in value:
        yield value


def _objects(answer: str) -> list[dict[str, Any]]:
    """The outermost JSON objects that stand whole in the text: a cut list loses its tail only."""
    decoder, place, found = json.JSONDecoder(strict=False), 0, []
    while (place := answer.find("{", place)) >= 0:
        try:
            value, place = decoder.raw_decode(answer, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        value.pop("plain", None)
        inner = value.get("pairs", value.get("questions", value.get("conversations")))
        found += [item for item in inner if isinstance(item, dict)] if isinstance(inner, list) else [value]
    return found
