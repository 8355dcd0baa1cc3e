"""Token F1: the words shared with the reference, ignoring case and punctuation; common in question answering."""

from __future__ import annotations

import unicodedata

from sartor.base.i18n import tr
from sartor.evaluation.metrics import PairMetric
from sartor.evaluation.metrics._words import content_words
from sartor.evaluation.metrics.corrected import rouge_n


class _TokenF1(PairMetric):
    def score(self, prediction: str, reference: str) -> float:
        """A reference without any word (punctuation only) must match exactly."""
        predicted, referenced = _words(prediction), _words(reference)
        if not referenced:
            return 100.0 if prediction.split() == reference.split() else 0.0
        return rouge_n(predicted, referenced, 1)


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text).lower()
    return [word for word in content_words(folded) if any(character.isalnum() for character in word)]


PLUGIN = _TokenF1(
    name="token-f1",
    signature="f1|jieba-words|lower|nfkc|no-punctuation|clipped|mean-of-rows|sartor-2",
    meaning=tr("The words shared with the reference, in any order; case and punctuation do not count."),
    examples=(("The cat!", "the cat", 100.0), ("cat", "the cat", 200 / 3), ("!", "?", 0.0)),
)
