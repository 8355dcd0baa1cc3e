"""BLEU-4 and ROUGE over characters or words, without LLaMA-Factory's oddities.

Texts are cleaned first, n-grams are counted as often as they occur (clipped), and a perfect short answer scores 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sartor.base.i18n import tr
from sartor.evaluation.metrics import PairMetric, _ngrams
from sartor.evaluation.metrics._words import content_characters, content_words


def bleu(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """Sentence BLEU (0–100): orders 1–4 up to the prediction's length, orders without a match smoothed by 1/2, 1/4 ….

    Must agree with sacrebleu's `sentence_bleu(smooth_method="exp", use_effective_order=True)`.
    """
    counts = _ngrams.overlap(prediction, reference)
    if not counts.shared[0]:
        return 0.0
    log_precisions, halvings = [], 0
    for shared, predicted in zip(counts.shared, counts.predicted):
        if not predicted:
            break
        if not shared:
            halvings += 1
        log_precisions.append(math.log(shared / predicted if shared else 1 / (2**halvings * predicted)))
    brevity = min(1.0, math.exp(1 - len(reference) / len(prediction)))
    return 100 * brevity * math.exp(math.fsum(log_precisions) / len(log_precisions))


def rouge_n(prediction: Sequence[str], reference: Sequence[str], order: int) -> float:
    """F1 of n-grams with clipped counts (0–100); where neither has an n-gram: 100 if they are equal, else 0."""
    counts = _ngrams.overlap(prediction, reference)
    predicted, referenced, shared = (each[order - 1] for each in (counts.predicted, counts.referenced, counts.shared))
    if not predicted and not referenced:
        return 100.0 if list(prediction) == list(reference) else 0.0
    return 200 * shared / (predicted + referenced)


def rouge_l(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the longest common subsequence (0–100)."""
    if not prediction or not reference:
        return 0.0
    shared = _ngrams.common_subsequence(*_ngrams.interned(prediction, reference))
    return 200 * shared / (len(prediction) + len(reference))


@dataclass(frozen=True, kw_only=True)
class _Corrected(PairMetric):
    split: Callable[[str], list[str]]
    """Text → characters or words."""


class _Bleu4(_Corrected):
    def score(self, prediction: str, reference: str) -> float:
        return bleu(self.split(prediction), self.split(reference))


@dataclass(frozen=True, kw_only=True)
class _RougeN(_Corrected):
    order: int

    def score(self, prediction: str, reference: str) -> float:
        return rouge_n(self.split(prediction), self.split(reference), self.order)


class _RougeL(_Corrected):
    def score(self, prediction: str, reference: str) -> float:
        return rouge_l(self.split(prediction), self.split(reference))


PLUGINS = (
    _Bleu4(
        name="bleu-4.char",
        split=content_characters,
        signature="bleu4|char|exp|effective-order|mean-of-sentences|sartor-2",
        meaning=tr(
            "BLEU-4 on characters: runs of 1 to 4 characters shared with the reference. Runs longer than the answer "
            "are not required, so a perfect short answer scores 100."
        ),
        examples=(("是", "是", 100.0), ("积极", "消极", 50.0), ("", "是", 0.0)),
    ),
    _Bleu4(
        name="bleu-4.word",
        split=content_words,
        signature="bleu4|word|exp|effective-order|mean-of-sentences|sartor-2",
        meaning=tr(
            "BLEU-4 on words: runs of 1 to 4 words shared with the reference. Runs longer than the answer are not "
            "required, so a perfect short answer scores 100."
        ),
        examples=(("是", "是", 100.0), ("积极", "消极", 0.0), ("a b c d", "a b c d", 100.0)),
    ),
    _RougeN(
        name="rouge-1.char",
        split=content_characters,
        order=1,
        signature="rouge1|char|f|clipped|mean-of-rows|sartor-2",
        meaning=tr(
            "ROUGE-1 on characters: the characters shared with the reference, in any order, each counted as often as "
            "it occurs."
        ),
        examples=(("积极", "消极", 50.0), ("是", "是", 100.0), ("", "是", 0.0)),
    ),
    _RougeN(
        name="rouge-1.word",
        split=content_words,
        order=1,
        signature="rouge1|word|f|clipped|mean-of-rows|sartor-2",
        meaning=tr(
            "ROUGE-1 on words: the words shared with the reference, in any order, each counted as often as it occurs."
        ),
        examples=(("积极", "消极", 0.0), ("the the", "the", 200 / 3), ("", "a", 0.0)),
    ),
    _RougeN(
        name="rouge-2.char",
        split=content_characters,
        order=2,
        signature="rouge2|char|f|clipped|mean-of-rows|sartor-2",
        meaning=tr("ROUGE-2 on characters: the pairs of adjacent characters shared with the reference."),
        examples=(("是", "是", 100.0), ("abc", "abd", 50.0), ("是", "否", 0.0)),
    ),
    _RougeN(
        name="rouge-2.word",
        split=content_words,
        order=2,
        signature="rouge2|word|f|clipped|mean-of-rows|sartor-2",
        meaning=tr("ROUGE-2 on words: the pairs of adjacent words shared with the reference."),
        examples=(("是", "是", 100.0), ("the cat sat", "the cat ran", 50.0)),
    ),
    _RougeL(
        name="rouge-l.char",
        split=content_characters,
        signature="rougeL|char|f|lcs|mean-of-rows|sartor-2",
        meaning=tr(
            "ROUGE-L on characters: the longest sequence of characters that occurs in both texts in the same order."
        ),
        examples=(("a b c", "abc", 100.0), ("acb", "abc", 200 / 3)),
    ),
    _RougeL(
        name="rouge-l.word",
        split=content_words,
        signature="rougeL|word|f|lcs|mean-of-rows|sartor-2",
        meaning=tr("ROUGE-L on words: the longest sequence of words that occurs in both texts in the same order."),
        examples=(("the cat sat", "the cat sat", 100.0), ("cat the", "the cat", 50.0)),
    ),
)
