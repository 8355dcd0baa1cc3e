"""Corpus chrF by sacrebleu: shared runs of 1 to 6 characters, recall counted twice; good for short answers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sartor.base.i18n import tr
from sartor.evaluation.metrics import CorpusMetric

if TYPE_CHECKING:
    from sacrebleu.metrics import CHRF


class _CorpusChrf(CorpusMetric):
    def score(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        return min(100.0, float(_chrf().corpus_score(list(predictions), [list(references)]).score))

    def signature_for(self, references: Sequence[str]) -> str:
        """sacrebleu's own signature of what was computed."""
        metric = _chrf()
        metric.corpus_score([""], [[""]])
        return str(metric.get_signature())


@functools.cache
def _chrf() -> CHRF:
    from sacrebleu.metrics import CHRF

    return CHRF()


PLUGIN = _CorpusChrf(
    name="chrf",
    signature="sacrebleu",
    meaning=tr(
        "Corpus chrF by sacrebleu: runs of 1 to 6 characters shared over all rows; tolerates small changes in words."
    ),
    examples=(("你好吗", "你好吗", 100.0), ("", "a", 0.0)),
)
