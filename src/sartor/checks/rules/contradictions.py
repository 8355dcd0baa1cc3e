"""The same question with different answers, which the model cannot learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from sartor.base.reasons import Reason
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput, LintRow
from sartor.checks.near_duplicates import fold
from sartor.checks.rules import Rule


class Contradictions(Rule):
    """Questions with more than one answer."""

    name = "contradictions"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "answers-differ": Reason(
            "The same question is in {other} with a different answer.",
            "Keep one answer, or make the questions differ.",
        ),
    }

    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """Rows whose question, folded, occurred before with another answer."""
        first_of: dict[str, LintRow] = {}
        for row in lint_input.rows:
            question = fold(row.question)
            if not question:
                continue
            first = first_of.setdefault(question, row)
            if first is not row and first.origin.id != row.origin.id and fold(first.answer) != fold(row.answer):
                params = {"other": str(first.origin)}
                yield Finding("answers-differ", "warning", row.origin, None, params, first.origin)


PLUGIN = Contradictions()
EXAMPLES = (
    ((("Who?", "Darcy."), ("who? ", "Bingley.")), ("answers-differ",)),
    ((("Who?", "Darcy."), ("Who?", "darcy."), ("Where?", "Bath.")), ()),
)
"""(question–answer pairs, the codes found in them)."""
