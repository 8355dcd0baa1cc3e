"""LLaMA-Factory's ROUGE and BLEU for one pair, digit for digit, its oddities included; the corrected ones are apart.

Must agree with LLaMA-Factory 0.9.5, that is: jieba 0.42.1 words joined by blanks, rouge_chinese 1.0.3 over them, and
nltk's `sentence_bleu` with `method3` over characters; each value times 100 and rounded to four decimals.
"""

from __future__ import annotations

import functools
import math
import re

from sartor.evaluation.metrics import _ngrams
from sartor.evaluation.metrics._words import jieba_words

_SIX_DOTS = re.compile(r"(\.{6})([^”’])")
_SENTENCE_ENDS = "。！？?"


@functools.lru_cache(maxsize=8)
def rouge(prediction: str, reference: str) -> tuple[float, float, float]:
    """rouge-1, rouge-2, rouge-l (F, 0–100)."""
    predicted, referenced = _rouge_words(prediction), _rouge_words(reference)
    if not predicted or not referenced:
        return 0.0, 0.0, 0.0
    distinct, distinct_too = set(predicted), set(referenced)
    one, other = _ngrams.interned(predicted, referenced)
    return (
        _f(len(distinct), len(distinct_too), len(distinct & distinct_too)),
        _f(*_ngrams.shared_bigram_sets(one, other)),
        _f(len(one), len(other), _ngrams.common_subsequence(one, other)),
    )


def bleu(prediction: str, reference: str) -> float:
    """Sentence BLEU-4 on characters, blanks included, NIST smoothing (0–100)."""
    if not prediction:
        return 0.0
    counts = _ngrams.overlap(prediction, reference)
    if not counts.shared[0]:
        return 0.0
    logarithms, halvings = [], 0
    for shared, predicted in zip(counts.shared, counts.predicted):
        if shared:
            precision = shared / predicted
        else:  # method3 of nltk: 1/2, 1/4 … of one n-gram, also where the text is too short to have any
            halvings += 1
            precision = 1 / (2**halvings * max(1, predicted))
        logarithms.append(0.25 * math.log(precision))
    length, wanted = len(prediction), len(reference)
    brevity = 1.0 if length > wanted else math.exp(1 - wanted / length)
    return round(brevity * math.exp(math.fsum(logarithms)) * 100, 4)


def _f(predicted: int, referenced: int, shared: int) -> float:
    precision = shared / predicted if predicted else 0.0
    recall = shared / referenced if referenced else 0.0
    return round(2.0 * ((precision * recall) / (precision + recall + 1e-8)) * 100, 4)


def _rouge_words(text: str) -> list[str]:
    """The words that rouge_chinese sees: a sentence of nothing but blanks counts as one empty word.

    It splits the blank-joined words at line ends, after `。！？?` and after six dots; empty when there is no word.
    """
    words = jieba_words(text)
    if "\n" not in text and "......" not in text:  # a sentence of blanks needs a line end to come about
        return [word for word in words if not word.isspace()]
    joined = " ".join(words)
    if not joined.split():
        return []
    for end in _SENTENCE_ENDS:
        joined = joined.replace(end + " ", end + "\n ")
    joined = _SIX_DOTS.sub(r"\1\n\2", joined)
    sentences = [sentence.split() or [""] for sentence in joined.rstrip().split("\n") if sentence]
    return [word for sentence in sentences for word in sentence]
