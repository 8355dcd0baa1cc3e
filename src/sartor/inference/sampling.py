"""From logits to the next token: greedy, or sampled by (seed, row, position)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sartor.base.settings import GenerationSettings


def uniform(seed: int, row: int, position: int) -> float:
    """A number in [0, 1) that depends only on these three, so that a row's draws do not depend on its batch."""
    return float(np.random.Generator(np.random.Philox(key=[seed, row], counter=[position, 0, 0, 0])).random())


def next_tokens(
    logits_BV: Tensor, settings: GenerationSettings, seen: list[list[int]], keys: list[tuple[int, int, int]]
) -> Tensor:
    """The next id of each row. `seen` are the ids so far (for repetition_penalty), `keys` (seed, row, position)."""
    scores = logits_BV.float()
    if settings.repetition_penalty != 1.0:
        scores = penalize_repetition(scores, seen, settings.repetition_penalty)
    if not settings.do_sample or settings.temperature == 0:
        return scores.argmax(dim=-1)
    probabilities = distribution(scores, settings)
    draws = torch.tensor([uniform(*key) for key in keys], dtype=torch.float64, device=scores.device)
    cumulative = probabilities.double().cumsum(dim=-1)
    return (cumulative < (draws * cumulative[:, -1])[:, None]).sum(dim=-1).clamp_max(scores.shape[-1] - 1)


def penalize_repetition(scores_BV: Tensor, seen: list[list[int]], penalty: float) -> Tensor:
    """Repetition penalty (Keskar et al. 2019): divide positive scores of seen tokens, multiply negative ones."""
    scores = scores_BV.clone()
    for row, ids in enumerate(seen):
        index = torch.tensor(sorted(set(ids)), device=scores.device)
        values = scores[row, index]
        scores[row, index] = torch.where(values > 0, values / penalty, values * penalty)
    return scores


def distribution(scores_BV: Tensor, settings: GenerationSettings) -> Tensor:
    """Probabilities after temperature, top-k, then top-p (the smallest set that reaches it; at least one token)."""
    scores = scores_BV / max(settings.temperature, 1e-5)
    if settings.top_k:
        kth = scores.topk(min(settings.top_k, scores.shape[-1]), dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < kth, float("-inf"))
    probabilities = scores.softmax(dim=-1)
    if settings.top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        outside = ordered.cumsum(dim=-1) - ordered >= settings.top_p
        outside[:, 0] = False
        probabilities = probabilities.masked_fill(outside.gather(1, order.argsort(dim=-1)), 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities
