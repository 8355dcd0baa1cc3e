"""Corpus BLEU by sacrebleu, as papers report it; mostly Chinese texts are split into characters."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sartor.base.i18n import tr
from sartor.evaluation.metrics import CorpusMetric, mostly_chinese

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU


class _CorpusBleu(CorpusMetric):
    def score(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        found = _bleu(_tokenizer(references)).corpus_score(list(predictions), [list(references)])
        return min(100.0, float(found.score))

    def signature_for(self, references: Sequence[str]) -> str:
        """sacrebleu's own signature of what was computed."""
        metric = _bleu(_tokenizer(references))
        metric.corpus_score([""], [[""]])
        return str(metric.get_signature())


def _tokenizer(references: Sequence[str]) -> str:
    return "zh" if mostly_chinese(references) else "13a"


@functools.cache
def _bleu(tokenize: str) -> BLEU:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenize)


PLUGIN = _CorpusBleu(
    name="bleu",
    signature="sacrebleu",
    meaning=tr("Corpus BLEU by sacrebleu, as papers report it: runs of 1 to 4 words shared over all rows together."),
    examples=(("the cat sat on the mat", "the cat sat on the mat", 100.0), ("", "a", 0.0)),
)
