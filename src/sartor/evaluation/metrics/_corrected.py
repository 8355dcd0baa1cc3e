"""BLEU and ROUGE for one pair of word or character lists, without the oddities; what the units are is the caller's."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sartor.evaluation.metrics import _ngrams


def bleu(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """Sentence BLEU (0–100): orders 1–4 as far as the prediction is long, zero counts halved again and again.

    Must agree with sacrebleu's `sentence_bleu(smooth_method="exp", use_effective_order=True)`.
    """
    counts = _ngrams.overlap(prediction, reference)
    if not counts.shared[0]:
        return 0.0
    logarithms, halvings = [], 0
    for shared, predicted in zip(counts.shared, counts.predicted):
        if not predicted:
            break
        if not shared:
            halvings += 1
        logarithms.append(math.log(shared / predicted if shared else 1 / (2**halvings * predicted)))
    brevity = min(1.0, math.exp(1 - len(reference) / len(prediction)))
    return 100 * brevity * math.exp(math.fsum(logarithms) / len(logarithms))


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
