"""Token F1: words shared with the reference, case and punctuation aside; what question answering usually reports."""

from __future__ import annotations

import unicodedata

from sartor.evaluation.metrics import Examples, _corrected
from sartor.evaluation.metrics._words import content_words

NAME = "token-f1"
RANGE = (0.0, 100.0)
SIGNATURE = "f1|jieba-words|lower|nfkc|no-punctuation|clipped|mean-of-rows|sartor-1"
MEANING = {
    "en": "Words shared with the reference, in any order; upper and lower case and punctuation do not count.",
    "zh": "与参考答案共有的词语，不计顺序、大小写和标点。",
}


def score(prediction: str, reference: str) -> float:
    """0–100; a reference of punctuation only is compared as it stands."""
    predicted, referenced = _words(prediction), _words(reference)
    if not referenced:
        return 100.0 if prediction.split() == reference.split() else 0.0
    return _corrected.rouge_n(predicted, referenced, 1)


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text).lower()
    return [word for word in content_words(plain) if any(character.isalnum() for character in word)]


EXAMPLES: Examples = (("The cat!", "the cat", 100.0), ("cat", "the cat", 200 / 3), ("!", "?", 0.0))
