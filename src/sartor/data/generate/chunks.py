"""Sections to chunks at paragraph and sentence ends, as exact offsets into the section; knows no file formats."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PARAGRAPH = re.compile(r"\n[ \t\u3000]*\n\s*|\n(?=[ \t]{2,}|\u3000)")
SENTENCE = re.compile(r"[。！？!?…]+[」』”’\"')）]*\s*|\.+[”’\"')]*\s+(?=[\"'“‘(]*[A-Z0-9])|\.+[”’\"')]*\s*$")
ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Jr|Sr|vs|No|e\.g|i\.e|etc)|\b[A-Z])$")


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
    found = []
    for start, stop in spans:
        piece = text[start:stop]
        if piece.strip():
            start += len(piece) - len(piece.lstrip())
            stop -= len(piece) - len(piece.rstrip())
            found.append(Chunk(text[start:stop], start, stop))
    return found


def sentence_ends(text: str) -> Iterator[int]:
    """Offsets behind each sentence (and the space after it); an abbreviation's full stop ends none."""
    for found in SENTENCE.finditer(text):
        if found[0][0] != "." or not ABBREVIATION.search(text[max(found.start() - 8, 0) : found.start()]):
            yield found.end()


def _units(text: str, most: int) -> Iterator[tuple[int, int]]:
    """Paragraphs; of a longer one its sentences; of a longer sentence its pieces."""
    for start, stop in _cut(0, [found.end() for found in PARAGRAPH.finditer(text)], len(text)):
        if stop - start <= most:
            yield start, stop
            continue
        ends = [start + end for end in sentence_ends(text[start:stop])]
        for first, last in _cut(start, ends, stop):
            for piece in range(first, last, most):
                yield piece, min(piece + most, last)


def _cut(start: int, ends: list[int], stop: int) -> Iterator[tuple[int, int]]:
    for end in [*ends, stop]:
        if end > start:
            yield start, end
            start = end
