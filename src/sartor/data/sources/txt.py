"""Plain text for pre-training: paragraphs between blank lines are the rows; without blank lines each line is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sartor.base.types import RawRow
from sartor.data.encoding import open_text

SUFFIXES = (".txt", ".text", ".md")
TEXT = True
COLUMN = "text"
"""The one column of such a file; stage pt reads it without being told."""


def rows(path: Path, where: str, encoding: str) -> Iterator[RawRow]:
    """Each paragraph as `{"text": …}`, its line the first of it; line breaks within are kept."""
    apart = _has_blank_lines(path, encoding)
    number = 0
    paragraph: list[str] = []
    begin = 1
    with open_text(path, encoding, newline=None) as lines:  # type: ignore[arg-type]
        for line_number, line in enumerate(lines, 1):
            if line.strip():
                if not paragraph:
                    begin = line_number
                paragraph.append(line)
            if paragraph and not (apart and line.strip()):
                number += 1
                yield RawRow(number, begin, {COLUMN: "".join(paragraph).strip()})
                paragraph = []
    if paragraph:
        yield RawRow(number + 1, begin, {COLUMN: "".join(paragraph).strip()})


def _has_blank_lines(path: Path, encoding: str) -> bool:
    """Whether a blank line stands between two that are not."""
    blank = text = False
    with open_text(path, encoding) as lines:
        for line in lines:
            if not line.strip():
                blank = text
            elif blank:
                return True
            else:
                text = True
    return False


EXAMPLES = (
    (
        "It is a truth\nuniversally acknowledged.\n\n\nHowever little known.\n",
        [{"text": "It is a truth\nuniversally acknowledged."}, {"text": "However little known."}],
    ),
    ("one\ntwo\n", [{"text": "one"}, {"text": "two"}]),
)
"""(text, rows)"""
