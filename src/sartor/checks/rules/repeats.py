"""Rows that stand in the data more than once, exactly or nearly, above all across training and held-out rows."""

from __future__ import annotations

from collections.abc import Iterator

from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput
from sartor.checks.near_duplicates import near_pairs


def find(subject: LintInput) -> Iterator[Finding]:
    """Pairs, never deleted: equal rows, near-equal rows, and either kind where one row is held out."""
    rows = [*subject.training_rows, *(row for row in subject.rows if row.held_out)]
    for pair in near_pairs([row.text for row in rows]):
        first, second = rows[pair.first], rows[pair.second]
        if first.origin.id == second.origin.id:  # oversampled on purpose
            continue
        code = "duplicate" if pair.similarity == 1.0 else "near-duplicate"
        if first.held_out != second.held_out:
            code = "leak"
        params = {"other": str(first.origin), "similarity": f"{pair.similarity:.2f}"}
        yield Finding(code, "warning", second.origin, None, params, first.origin)


LONG = "Who is the author of the novel Pride and Prejudice, published in 1813?"
EXAMPLES = (
    (((LONG, "Jane Austen wrote it."), (LONG, "Jane  Austen wrote it. ")), ("duplicate",)),
    (((LONG, "Jane Austen wrote it."), (LONG + "?", "Jane Austen wrote it!")), ("near-duplicate",)),
    (((LONG, "Jane Austen wrote it."), ("What is a barouche?", "A carriage with four wheels.")), ()),
)
