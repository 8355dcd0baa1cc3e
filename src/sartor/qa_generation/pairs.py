"""Parses a model's answer into grounded question–answer pairs; every rejected pair has a reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from sartor.base.files import whole_characters
from sartor.base.i18n import Text, tr
from sartor.qa_generation.chunks import sentences_of

RejectionCode = Literal["no-json", "incomplete", "quote-not-found", "not-grounded", "too-few-turns", "near-duplicate"]
REJECTIONS: Mapping[RejectionCode, Text] = {
    "no-json": tr("no JSON and no Q/A lines in the answer"),
    "incomplete": tr("question, answer or quote missing"),
    "quote-not-found": tr("quote not found in the passage"),
    "not-grounded": tr("answer not supported by any sentence of the passage"),
    "too-few-turns": tr("fewer than two turns"),
    "near-duplicate": tr("question nearly repeats an earlier one"),
}
MIN_WORD_OVERLAP = 0.7
"""The fraction of a plain answer's words that must occur in one sentence of the passage, which is then the quote."""
PLAIN = re.compile(
    r"^[ \t*#\d.]*(?P<kind>Q|A|Question|Answer|Quote|问|答|问题|答案|引文)[ \t*]*[:：][ \t*]*", re.MULTILINE | re.I
)
FIELD_NAMES = {
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
OBJECT = re.compile(r"\{(?=\s{0,99}[\"}])")
MAX_ANSWER_CHARACTERS, MAX_FAILED_OBJECTS = 200_000, 200
"""What is read of an answer, and beginnings of objects in it that are none: a hostile one must not take hours."""
MAX_QUOTE_FACTOR = 4
"""A quote has other white space than its passage, but not so much that it is this many times longer."""
WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the is are was were be been it its he she they them his her their this that of in on at to for by "
        "with and or as from did does do had has have not no yes there who what when where which "
        "的 了 是 在 和 他 她 它 这 那 也",
    )
)
"""Words that are no evidence."""
MIN_SIMILARITY, MIN_BIGRAMS = 0.85, 8
"""Questions are duplicates from this Jaccard index of their character bigrams; with fewer bigrams, if equal."""


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
    """A question, its answer and the quote that supports it."""

    question: str
    answer: str
    quote: str


@dataclass(frozen=True, slots=True)
class GroundedPair:
    """A question and an answer whose `quote` occurs in the passage, white space aside; `more_turns` may follow."""

    question: str
    answer: str
    quote: str
    passage: Passage
    more_turns: tuple[Turn, ...] = ()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The whole conversation, including the first turn."""
        return Turn(self.question, self.answer, self.quote), *self.more_turns

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The position of each turn's quote in `passage.text`: start and stop; (0, 0) if it does not occur."""
        return tuple(locate(turn.quote, self.passage.text) or (0, 0) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class RejectedPair:
    """A pair that is not used, and why."""

    reason: RejectionCode
    question: str
    passage: Passage


class DuplicateFilter:
    """Whether a question nearly repeats an earlier one: Jaccard index of character bigrams, with prefix filtering."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._by_gram: dict[str, list[frozenset[str]]] = {}

    def __call__(self, question: str) -> bool:
        """True for a duplicate; otherwise the question is added."""
        text = fold(question).lower()
        if text in self._seen:
            return True
        self._seen.add(text)
        grams = frozenset(text[place : place + 2] for place in range(len(text) - 1))
        if len(grams) < MIN_BIGRAMS:
            return False
        # Sets this similar share one of their first few members in any fixed order.
        first = sorted(grams)[: len(grams) - int(MIN_SIMILARITY * len(grams)) + 1]
        for gram in first:
            for other in self._by_gram.get(gram, ()):
                common = len(grams & other)
                if common >= MIN_SIMILARITY * (len(grams) + len(other) - common):
                    return True
        for gram in first:
            self._by_gram.setdefault(gram, []).append(grams)
        return False


def parse(
    answer: str, passage: Passage, max_pairs: int, multi_turn: bool = False
) -> tuple[list[GroundedPair], list[RejectedPair]]:
    """The first `max_pairs` pairs (or conversations) of an answer, whatever surrounds its JSON.

    An answer without JSON may have lines of `Q:`, `A:` and, optionally, `Quote:` (`问：答：引文：`).
    """
    good: list[GroundedPair] = []
    bad: list[RejectedPair] = []
    answer = answer[:MAX_ANSWER_CHARACTERS]
    values = _objects(answer) or list(islice(_plain(answer), max_pairs))
    for value in values[:max_pairs]:
        turns = value.get("turns", value.get("conversation")) if multi_turn else None
        found, rejected = _turns(turns if isinstance(turns, list) else [value], passage)
        bad += rejected
        if multi_turn and len(found) < 2:
            bad += [] if rejected else [RejectedPair("too-few-turns", found[0].question, passage)]
        elif found:
            good.append(joined(found, passage))
    return good, bad if values else [RejectedPair("no-json", "", passage)]


def joined(turns: list[Turn], passage: Passage) -> GroundedPair:
    """The turns as one conversation."""
    first = turns[0]
    return GroundedPair(first.question, first.answer, first.quote, passage, tuple(turns[1:]))


def fold(text: str) -> str:
    """Runs of white space as one space."""
    return re.sub(r"\s+", " ", text).strip()


def locate(quote: str, text: str) -> tuple[int, int] | None:
    """The position of a verbatim quote, where any white space matches any other."""
    words = quote.split()
    possible = words and len(quote.strip()) <= MAX_QUOTE_FACTOR * len(text) and all(word in text for word in words)
    found = re.search(r"\s+".join(map(re.escape, words)), text) if possible else None
    return found.span() if found else None


def _turns(values: list[Any], passage: Passage) -> tuple[list[Turn], list[RejectedPair]]:
    """The turns before the first rejected one: later turns may depend on it."""
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
    """The sentence with most of the answer's words; "" if none has enough of them."""
    words = _words(answer)
    best, best_share = "", 0.0
    for start, stop in sentences_of(text):
        share = len(words & _words(text[start:stop])) / len(words) if words else 0.0
        if share > best_share:
            best, best_share = text[start:stop], share
    return best if best_share >= MIN_WORD_OVERLAP else ""


def _words(text: str) -> set[str]:
    return {word for word in WORD.findall(text.lower()) if word not in STOP_WORDS}


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return whole_characters(found).strip() if isinstance(found, str) else ""


def _plain(answer: str) -> Iterator[dict[str, Any]]:
    """Pairs from lines that begin with `Q:` and `A:`; each text ends with its line."""
    value: dict[str, Any] = {}
    for found in PLAIN.finditer(answer):
        kind = FIELD_NAMES[found["kind"].lower()]
        if kind == "question":
            if "question" in value:
                yield value
            value = {"plain": True}
        end = answer.find("\n", found.end())
        value.setdefault(kind, answer[found.end() : end if end >= 0 else None].strip(" *"))
    if "question" in value:
        yield value


def _objects(answer: str) -> list[dict[str, Any]]:
    """The outermost complete JSON objects in the text: a truncated list loses only its tail."""
    decoder, place, failures, found = json.JSONDecoder(strict=False), 0, 0, []
    while (start := OBJECT.search(answer, place)) and failures < MAX_FAILED_OBJECTS:
        try:
            value, place = decoder.raw_decode(answer, start.start())
        except (ValueError, RecursionError):
            place = start.start() + 1
            failures += 1
            continue
        value.pop("plain", None)
        inner = value.get("pairs", value.get("questions", value.get("conversations")))
        found += [item for item in inner if isinstance(item, dict)] if isinstance(inner, list) else [value]
    return found
