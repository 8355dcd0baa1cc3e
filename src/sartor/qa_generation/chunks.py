"""Sections to chunks at paragraph and sentence ends, as exact offsets into the section; knows no file formats."""

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
"""Where a sentence that is too long is cut, if there is such a place in the second half of a piece."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`text` is the section's text from `start` to `stop`."""

    text: str
    start: int
    stop: int


def chunks_of(text: str, most: int) -> list[Chunk]:
    """As few chunks of at most `most` characters as sentence ends allow; only a longer sentence is cut itself."""
    spans: list[tuple[int, int]] = []
    for start, stop in _units(text, most):
        if spans and stop - spans[-1][0] <= most:
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((start, stop))
    return [Chunk(text[start:stop], start, stop) for start, stop in _stripped(text, spans)]


def sentence_ends(text: str) -> Iterator[int]:
    """Offsets behind each sentence (and the space after it).

    An abbreviation's full stop ends none, nor does a mark after which a small letter follows: “Why?” asked she.
    """
    for found in SENTENCE.finditer(text):
        following = text[found.end() : found.end() + 4].lstrip(OPENERS)[:1]
        if found[0][0] == "." and ABBREVIATION.search(text[max(found.start() - 8, 0) : found.start()]):
            continue
        if not following.islower():
            yield found.end()


def sentences_of(text: str) -> list[tuple[int, int]]:
    """Start and stop of each sentence of each paragraph, without the space around it."""
    return list(_stripped(text, (span for paragraph in _paragraphs(text) for span in _sentences(text, *paragraph))))


def _stripped(text: str, spans: Iterator[tuple[int, int]] | list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans without the white space at their ends; empty ones are left out."""
    for start, stop in spans:
        piece = text[start:stop]
        if piece.strip():
            yield start + len(piece) - len(piece.lstrip()), stop - len(piece) + len(piece.rstrip())


def _units(text: str, most: int) -> Iterator[tuple[int, int]]:
    """Paragraphs; of a longer one its sentences; of a longer sentence its pieces."""
    for start, stop in _paragraphs(text):
        if stop - start <= most:
            yield start, stop
            continue
        for first, last in _sentences(text, start, stop):
            yield from _pieces(text, first, last, most)


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    return _cut(0, [found.end() for found in PARAGRAPH.finditer(text)], len(text))


def _sentences(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    return _cut(start, [start + end for end in sentence_ends(text[start:stop])], stop)


def _pieces(text: str, start: int, stop: int, most: int) -> Iterator[tuple[int, int]]:
    """A sentence whole where it fits without the space after it, else cut at pauses, else anywhere."""
    while stop - start > most and len(text[start:stop].rstrip()) > most:
        pauses = [found.end() for found in PAUSE.finditer(text, start, start + most) if found.end() > start + most // 2]
        end = pauses[-1] if pauses else start + most
        yield start, end
        start = end
    yield start, stop


def _cut(start: int, ends: list[int], stop: int) -> Iterator[tuple[int, int]]:
    for end in [*ends, stop]:
        if end > start:
            yield start, end
            start = end
