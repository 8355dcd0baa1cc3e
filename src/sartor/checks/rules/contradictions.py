"""The same question with different answers: the model can learn neither."""

from __future__ import annotations

from collections.abc import Iterator

from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput, LintRow
from sartor.checks.near_duplicates import fold


def find(subject: LintInput) -> Iterator[Finding]:
    """Rows whose folded question stood before with another folded answer."""
    first_of: dict[str, LintRow] = {}
    for row in subject.rows:
        question = fold(row.question)
        if not question:
            continue
        first = first_of.setdefault(question, row)
        if first is not row and first.origin.id != row.origin.id and fold(first.answer) != fold(row.answer):
            params = {"other": str(first.origin)}
            yield Finding("answers-differ", "warning", row.origin, None, params, first.origin)


EXAMPLES = (
    ((("Who?", "Darcy."), ("who? ", "Bingley.")), ("answers-differ",)),
    ((("Who?", "Darcy."), ("Who?", "darcy."), ("Where?", "Bath.")), ()),
)
