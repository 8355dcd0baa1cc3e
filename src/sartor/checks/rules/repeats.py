"""Rows that occur more than once, exactly or nearly, especially across training and held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from sartor.base.reasons import Reason
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput
from sartor.checks.near_duplicates import near_pairs
from sartor.checks.rules import Rule


class Repeats(Rule):
    """Duplicates, near-duplicates, and those across the split."""

    name = "repeats"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "duplicate": Reason(
            "The row is a duplicate of {other}.",
            "Delete one of them unless it is meant to count twice.",
        ),
        "near-duplicate": Reason(
            "The row is a near-duplicate of {other} (similarity {similarity}).",
            "Keep the better one unless the difference matters.",
        ),
        "leak": Reason(
            "A held-out row and the training row {other} are near-duplicates (similarity {similarity}).",
            "Delete one of them, or split by section; scores on such rows measure memorization.",
        ),
    }

    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """Pairs: equal rows, nearly equal rows, and either kind where one of the rows is held out."""
        train, held_out = lint_input.training_rows, [row for row in lint_input.rows if row.held_out]
        # Held-out rows are compared with training rows first: a copy among themselves must not hide a leak.
        for rows, known in (([*train, *held_out], len(train)), (held_out, len(held_out))):
            for pair in near_pairs([row.text for row in rows], known=known):
                first, second = rows[pair.first], rows[pair.second]
                if first.origin.id == second.origin.id:  # oversampled on purpose
                    continue
                code = "duplicate" if pair.similarity == 1.0 else "near-duplicate"
                if first.held_out != second.held_out:
                    code = "leak"
                params = {"other": str(first.origin), "similarity": f"{pair.similarity:.2f}"}
                yield Finding(code, "warning", second.origin, None, params, first.origin)


LONG = "Who is the author of the novel Pride and Prejudice, published in 1813?"
PLUGIN = Repeats()
EXAMPLES = (
    (((LONG, "Jane Austen wrote it."), (LONG, "Jane  Austen wrote it. ")), ("duplicate",)),
    (((LONG, "Jane Austen wrote it."), (LONG + "?", "Jane Austen wrote it!")), ("near-duplicate",)),
    (((LONG, "Jane Austen wrote it."), ("What is a barouche?", "A carriage with four wheels.")), ()),
)
"""(question–answer pairs, the codes found in them)."""
