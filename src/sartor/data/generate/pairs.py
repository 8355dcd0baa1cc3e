"""A model's answer to grounded question–answer pairs; each that is refused has its reason; knows no files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal["no-json", "incomplete", "quote-not-found", "near-duplicate"]


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
class Grounded:
    """A question and an answer whose `quote` stands in the passage, white space folded."""

    question: str
    answer: str
    quote: str
    passage: Passage


@dataclass(frozen=True, slots=True)
class Refused:
    """What a model wrote that is not used, and why."""

    reason: Reason
    question: str
    passage: Passage


def parse(answer: str, passage: Passage, most: int) -> tuple[list[Grounded], list[Refused]]:
    """The first `most` pairs of an answer, whatever stands around its JSON."""
    found = _objects(answer)
    good: list[Grounded] = []
    bad: list[Refused] = [] if found else [Refused("no-json", "", passage)]
    text = fold(passage.text)
    for value in found[:most]:
        question, reply, quote = (_text(value, name) for name in ("question", "answer", "quote"))
        if not (question and reply and quote):
            bad.append(Refused("incomplete", question, passage))
        elif fold(quote) not in text:
            bad.append(Refused("quote-not-found", question, passage))
        else:
            good.append(Grounded(question, reply, quote, passage))
    return good, bad


def without_repeats(
    pairs: Sequence[Grounded], repeats_of: Callable[[Sequence[str]], set[int]]
) -> tuple[list[Grounded], list[Refused]]:
    """Drop questions that nearly repeat an earlier one; `repeats_of` names their places."""
    again = repeats_of([pair.question for pair in pairs])
    kept = [pair for place, pair in enumerate(pairs) if place not in again]
    return kept, [Refused("near-duplicate", pairs[place].question, pairs[place].passage) for place in sorted(again)]


def fold(text: str) -> str:
    """Runs of white space as one space."""
    return re.sub(r"\s+", " ", text).strip()


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found.strip() if isinstance(found, str) else ""


def _objects(answer: str) -> list[dict[str, Any]]:
    """The outermost JSON objects that stand whole in the text: a cut list loses its tail only."""
    decoder, place, found = json.JSONDecoder(strict=False), 0, []
    while (place := answer.find("{", place)) >= 0:
        try:
            value, place = decoder.raw_decode(answer, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        inner = value.get("pairs", value.get("questions"))
        found += [item for item in inner if isinstance(item, dict)] if isinstance(inner, list) else [value]
    return found
