"""BLEU-4 and ROUGE as LLaMA-Factory computes them, digit for digit, for comparison with its numbers.

Must agree with LLaMA-Factory 0.9.5: jieba 0.42.1 words joined by spaces and scored by rouge_chinese 1.0.3, and nltk's
`sentence_bleu` with `method3` over characters; each value times 100, rounded to four decimals. `corrected.py` has the
same metrics without the oddities.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass

from sartor.base.i18n import tr
from sartor.evaluation.metrics import PairMetric, _ngrams
from sartor.evaluation.metrics._words import jieba_words

_SIX_DOTS = re.compile(r"(\.{6})([^”’])")
_SENTENCE_ENDS = "。！？?"


@functools.lru_cache(maxsize=8)
def rouge(prediction: str, reference: str) -> tuple[float, float, float]:
    """rouge-1, rouge-2, rouge-l (F, 0–100)."""
    predicted, referenced = _rouge_words(prediction), _rouge_words(reference)
    if not predicted or not referenced:
        return 0.0, 0.0, 0.0
    predicted_set, referenced_set = set(predicted), set(referenced)
    one, other = _ngrams.interned(predicted, referenced)
    return (
        _f(len(predicted_set), len(referenced_set), len(predicted_set & referenced_set)),
        _f(*_ngrams.shared_bigram_sets(one, other)),
        _f(len(one), len(other), _ngrams.common_subsequence(one, other)),
    )


def bleu(prediction: str, reference: str) -> float:
    """Sentence BLEU-4 on characters, whitespace included, NIST smoothing (0–100)."""
    if not prediction:
        return 0.0
    counts = _ngrams.overlap(prediction, reference)
    if not counts.shared[0]:
        return 0.0
    log_precisions, halvings = [], 0
    for shared, predicted in zip(counts.shared, counts.predicted):
        if shared:
            precision = shared / predicted
        else:  # nltk's method3: 1/2, 1/4 … of one n-gram, even where the text is too short to have any
            halvings += 1
            precision = 1 / (2**halvings * max(1, predicted))
        log_precisions.append(0.25 * math.log(precision))
    brevity = 1.0 if len(prediction) > len(reference) else math.exp(1 - len(reference) / len(prediction))
    return round(brevity * math.exp(math.fsum(log_precisions)) * 100, 4)


def _f(predicted: int, referenced: int, shared: int) -> float:
    precision = shared / predicted if predicted else 0.0
    recall = shared / referenced if referenced else 0.0
    return round(2.0 * ((precision * recall) / (precision + recall + 1e-8)) * 100, 4)


def _rouge_words(text: str) -> list[str]:
    """The words that rouge_chinese sees: a sentence of nothing but whitespace counts as one empty word.

    It splits the space-joined words at line ends, after `。！？?` and after six dots; empty when there is no word.
    """
    words = jieba_words(text)
    if "\n" not in text and "......" not in text:  # only a line end can make such a sentence
        return [word for word in words if not word.isspace()]
    joined = " ".join(words)
    if not joined.split():
        return []
    for end in _SENTENCE_ENDS:
        joined = joined.replace(end + " ", end + "\n ")
    joined = _SIX_DOTS.sub(r"\1\n\2", joined)
    sentences = [sentence.split() or [""] for sentence in joined.rstrip().split("\n") if sentence]
    return [word for sentence in sentences for word in sentence]


@dataclass(frozen=True, kw_only=True)
class _Bleu4(PairMetric):
    clean_texts: bool = False

    def score(self, prediction: str, reference: str) -> float:
        return bleu(prediction, reference)


@dataclass(frozen=True, kw_only=True)
class _Rouge(PairMetric):
    clean_texts: bool = False
    index: int
    """Of the value in what `rouge` returns."""

    def score(self, prediction: str, reference: str) -> float:
        return rouge(prediction, reference)[self.index]


PLUGINS = (
    _Bleu4(
        name="bleu-4",
        signature="bleu4|char|method3|mean-of-sentences|lf-0.9.5",
        meaning=tr(
            "LLaMA-Factory's BLEU-4: runs of 1 to 4 characters, spaces included, that the answer shares with the "
            "reference. Short answers score low even when perfect (one correct character: 35.36)."
        ),
        examples=(
            ("是", "是", 35.3553),
            ("积极", "消极", 29.7302),
            ("a b c d", "a b c d", 100.0),
            ("", "你好", 0.0),
        ),
    ),
    _Rouge(
        name="rouge-1",
        index=0,
        signature="rouge1|jieba|f|sets|mean-of-rows|lf-0.9.5",
        meaning=tr(
            "LLaMA-Factory's ROUGE-1: the distinct words shared with the reference, in any order (F-score of precision "
            "and recall)."
        ),
        examples=(
            ("积极", "消极", 0.0),
            ("你好", "\n\n你好", 66.6667),
            ("The cat sat.", "The cat sat.", 100.0),
        ),
    ),
    _Rouge(
        name="rouge-2",
        index=1,
        signature="rouge2|jieba|f|sets|mean-of-rows|lf-0.9.5",
        meaning=tr(
            "LLaMA-Factory's ROUGE-2: the distinct pairs of adjacent words shared with the reference. A perfect "
            "one-word answer scores 0."
        ),
        examples=(("是", "是", 0.0), ("The cat sat.", "The cat sat.", 100.0)),
    ),
    _Rouge(
        name="rouge-l",
        index=2,
        signature="rougeL|jieba|f|lcs|mean-of-rows|lf-0.9.5",
        meaning=tr(
            "LLaMA-Factory's ROUGE-L: the longest sequence of words that occurs in both texts in the same order."
        ),
        examples=(("A", "A", 100.0), ("你好", "\n\n你好", 66.6667)),
    ),
)
