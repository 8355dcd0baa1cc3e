"""Answers that stop in the middle of a sentence, in data where most do not: the model learns to stop there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from sartor.base.reasons import Reason
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput, LintRow
from sartor.checks.rules import Rule

ENDED = re.compile(r"[.!?。！？…;；:：)\]）】}」』”’\"'`*|>~～]\s*$|\d\s*$|[\U0001f000-\U0001ffff]\s*$")
"""Ends of sentences, quotes, lists, code, numbers: not cut."""
OPEN = re.compile(
    r"[,，、\-–—(（\[【「『“]\s*$|\b(?:and|or|the|a|an|of|to|in|is|are|with|for|that|which|but|because)\s*$"
)
"""An answer that ends like this is cut, whatever the others look like."""
LIST_LINE = re.compile(r"^\s*(?:[-*•·]|\d+[.、)])", re.MULTILINE)
NO_SENTENCE = re.compile(r"^\s{2,}\S|[=#{}<>°]|[-–—~]\s?[A-Z][\w.]*(?:\s[A-Z][\w.]*)*$")
"""Last lines that are code, formulas, hashtags or the author of a quotation."""
MOSTLY_FRAC = 0.7
"""If at least this fraction of the longer answers end with a sentence, one that does not is reported."""
LONG = 80
"""Characters above which an answer is expected to consist of sentences (Chinese: half as many)."""


class CutAnswers(Rule):
    """Answers without an end."""

    name = "cut_answers"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "answer-cut": Reason(
            "The answer seems to stop in the middle of a sentence: …{end}",
            "Complete or delete it; the model learns to stop there.",
        ),
    }

    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """A warning for each cut answer."""
        longer = [row for row in lint_input.rows if _is_long(row.answer)]
        ended = sum(bool(ENDED.search(row.answer)) for row in longer)
        mostly = bool(longer) and ended >= MOSTLY_FRAC * len(longer)
        for row in lint_input.rows:
            if _is_cut(row, mostly):
                yield Finding("answer-cut", "warning", row.origin, None, {"end": row.answer.rstrip()[-20:]})


def _is_cut(row: LintRow, mostly: bool) -> bool:
    answer = row.answer.rstrip()
    last = answer.rpartition("\n")[2]
    if len(answer) < LONG / 4 or "```" in answer or LIST_LINE.search(last) or NO_SENTENCE.search(last):
        return False
    if OPEN.search(answer):
        return True
    return mostly and _is_long(answer) and not ENDED.search(answer)


def _is_long(answer: str) -> bool:
    return len(answer) >= (LONG if answer.isascii() else LONG / 2)


FULL = "Mr. Darcy is the owner of Pemberley in Derbyshire, and he has ten thousand a year, as everyone says."
PLUGIN = CutAnswers()
EXAMPLES = (
    ((("Who?", FULL), ("Who?", FULL), ("Who?", FULL), ("Who?", FULL[:95])), ("answer-cut",)),
    (
        (
            ("Who?", "Mr. Darcy, who is the owner of the"),
            ("谁？", "达西先生是彭伯里的主人，家住德比郡，每年有一万镑，"),
        ),
        ("answer-cut",) * 2,
    ),
    (
        (
            ("Who?", FULL),
            ("Title?", "Pride and Prejudice"),
            ("List?", "Two of them are here:\n- Jane, the eldest of all"),
        ),
        (),
    ),
)
"""(question–answer pairs, the codes found in them)."""
