"""Plain text for pre-training: paragraphs between blank lines are the rows; without blank lines each line is one."""

from __future__ import annotations

from collections.abc import Iterator

from sartor.base.open_file import OpenFile
from sartor.base.types import RawRow
from sartor.data.encoding import open_text
from sartor.data.sources import Source


class TextSource(Source):
    """Plain text, one column named `text`."""

    name = "txt"
    suffixes = (".txt", ".text", ".md")
    text_column = "text"

    def rows(self, file: OpenFile, where: str, encoding: str) -> Iterator[RawRow]:
        """Each paragraph with the line it begins on; line breaks inside are kept."""
        by_paragraph = _has_blank_lines(file, encoding)
        number = 0
        paragraph: list[str] = []
        begin = 1
        with open_text(file, encoding, newline=None) as lines:  # type: ignore[arg-type]
            for line_number, line in enumerate(lines, 1):
                if line.strip():
                    if not paragraph:
                        begin = line_number
                    paragraph.append(line)
                if paragraph and not (by_paragraph and line.strip()):
                    number += 1
                    yield RawRow(number, begin, {self.text_column: "".join(paragraph).strip()})
                    paragraph = []
        if paragraph:
            yield RawRow(number + 1, begin, {self.text_column: "".join(paragraph).strip()})


def _has_blank_lines(file: OpenFile, encoding: str) -> bool:
    """Whether there is a blank line between two that are not."""
    blank = text = False
    with open_text(file, encoding) as lines:
        for line in lines:
            if not line.strip():
                blank = text
            elif blank:
                return True
            else:
                text = True
    return False


PLUGIN = TextSource()
EXAMPLES = (
    (
        "It is a truth\nuniversally acknowledged.\n\n\nHowever little known.\n",
        [{"text": "It is a truth\nuniversally acknowledged."}, {"text": "However little known."}],
    ),
    ("one\ntwo\n", [{"text": "one"}, {"text": "two"}]),
)
"""(text, rows)."""
