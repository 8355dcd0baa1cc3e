"""Exact match: the answer equals the reference, except for runs of whitespace."""

from __future__ import annotations

from sartor.base.i18n import tr
from sartor.evaluation.metrics import PairMetric


class _ExactMatch(PairMetric):
    def score(self, prediction: str, reference: str) -> float:
        return 100.0 if prediction.split() == reference.split() else 0.0


PLUGIN = _ExactMatch(
    name="exact-match",
    signature="exact|blanks-collapsed|case-kept|mean-of-rows|sartor-2",
    meaning=tr("The share of answers that equal the reference, letter for letter (whitespace aside)."),
    examples=(("a  b", "a b", 100.0), ("A b", "a b", 0.0), ("", "a", 0.0)),
)
