"""Cuts sections into chunks at the ends of paragraphs and sentences, with exact offsets into the section."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PARAGRAPH = re.compile(r"\n[ \t\u3000]*\n\s*|\n(?=[ \t]{2,}|\u3000)")
CLOSERS = r"[」』”’\"')）\]】》»]*"
SENTENCE = re.compile(rf"[。！？…]+{CLOSERS}\s*|[!?]+{CLOSERS}(?:\s+|$|(?=[\u3400-\u9fff“「『]))|\.+{CLOSERS}(?:\s+|$)")
OPENERS = "\"'“‘([*_«"
ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Jr|Sr|vs|No|Fig|cf|e\.g|i\.e|etc)|\b[A-Z])$")
PAUSE = re.compile(r"\n|[;；，、,:：]\s*|\s+")
"""Where a sentence that is too long is cut, if one of these is in the second half of a piece."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`text` is the section's text from `start` to `stop`."""

    text: str
    start: int
    stop: int


def chunks_of(text: str, max_characters: int) -> list[Chunk]:
    """Chunks of at most `max_characters`, as few as sentence ends allow; only a longer sentence is cut itself."""
    spans: list[tuple[int, int]] = []
    for start, stop in _units(text, max_characters):
        if spans and stop - spans[-1][0] <= max_characters:
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((start, stop))
    return [Chunk(text[start:stop], start, stop) for start, stop in _stripped(text, spans)]


def sentence_ends(text: str) -> Iterator[int]:
    """The offset after each sentence and the white space that follows it.

    The period of an abbreviation ends no sentence, nor does a mark before a lower-case letter: “Why?” asked she.
    """
    for found in SENTENCE.finditer(text):
        following = text[found.end() : found.end() + 4].lstrip(OPENERS)[:1]
        if found[0][0] == "." and ABBREVIATION.search(text[max(found.start() - 8, 0) : found.start()]):
            continue
        if not following.islower():
            yield found.end()


def sentences_of(text: str) -> list[tuple[int, int]]:
    """Start and stop of each sentence of each paragraph, without the white space around it."""
    return list(_stripped(text, (span for paragraph in _paragraphs(text) for span in _sentences(text, *paragraph))))


def _stripped(text: str, spans: Iterator[tuple[int, int]] | list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The spans without white space at their ends; empty ones are left out."""
    for start, stop in spans:
        piece = text[start:stop]
        if piece.strip():
            yield start + len(piece) - len(piece.lstrip()), stop - len(piece) + len(piece.rstrip())


def _units(text: str, max_characters: int) -> Iterator[tuple[int, int]]:
    """Paragraphs; the sentences of a paragraph that is too long; the pieces of a sentence that is."""
    for start, stop in _paragraphs(text):
        if stop - start <= max_characters:
            yield start, stop
            continue
        for first, last in _sentences(text, start, stop):
            yield from _pieces(text, first, last, max_characters)


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    return _cut(0, [found.end() for found in PARAGRAPH.finditer(text)], len(text))


def _sentences(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    return _cut(start, [start + end for end in sentence_ends(text[start:stop])], stop)


def _pieces(text: str, start: int, stop: int, limit: int) -> Iterator[tuple[int, int]]:
    """A sentence as it is if it fits (the white space after it aside), else cut at pauses, else anywhere."""
    while stop - start > limit and len(text[start:stop].rstrip()) > limit:
        pauses = [
            found.end() for found in PAUSE.finditer(text, start, start + limit) if found.end() > start + limit // 2
        ]
        end = pauses[-1] if pauses else start + limit
        yield start, end
        start = end
    yield start, stop


def _cut(start: int, ends: list[int], stop: int) -> Iterator[tuple[int, int]]:
    for end in [*ends, stop]:
        if end > start:
            yield start, end
            start = end
