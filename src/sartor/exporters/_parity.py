"""Compares an exported model with the trained one: eight prompts, answered by both, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sartor.base.errors import ExportError
from sartor.base.i18n import Text, tr
from sartor.exporters import ANSWERS_DIFFER, Check, Source, Tolerance
from sartor.model.load import load_adapter, load_model

PROMPTS = (
    "What is the capital of France?",
    "用一句话介绍你自己。",
    "Write a haiku about rain.",
    "3 + 4 × 12 = ?",
    "把“早上好”翻译成英语。",
    "List three primary colors, one per line.",
    "Why is the sky blue? Answer briefly. 🌤️",
    "def add(a, b):\n\treturn a + b\n\n# 1234567 — what does this code do?",
)
FIX = tr("Please report it with the model's config.json; --to adapter loses nothing.")
ANSWER_TOKENS = 16
LIKELIEST = 10
"""At each position, at most this many of the reference's tokens are compared …"""
LIKELY = -7.0
"""… and only those with a probability above 0.1 %: others are hardly ever sampled, and their logits differ most."""

Probe: TypeAlias = Callable[[Sequence[int], Sequence[int]], Sequence[Tensor]]
"""(prompt ids, answer ids) → log-probabilities [V] at each position of the answer."""


@dataclass(frozen=True, slots=True)
class ReferenceAnswers:
    """The greedy answers of the trained model: the adapter over its base in float32, not merged."""

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    likeliest: tuple[tuple[tuple[Tensor, Tensor], ...], ...]
    """For each prompt and position: log-probabilities [LIKELIEST] and their token ids."""
    tokenizer: Any

    @classmethod
    def of(cls, source: Source) -> ReferenceAnswers:
        model = _plain_model(source.model, source)
        if source.adapter is not None:
            model = load_adapter(model, source.adapter).eval()
        engine = source.engine
        prompts = [tuple(engine.prompt([{"role": "user", "content": text}]).ids.tolist()) for text in PROMPTS]
        answers, likeliest = [], []
        for prompt in prompts:
            answer = _greedy(model, prompt, engine.encoder.stop_ids)
            top = [values.topk(LIKELIEST) for values in probe_model(model)(prompt, answer)]
            answers.append(answer)
            likeliest.append(tuple((found.values, found.indices) for found in top))
        return cls(tuple(prompts), tuple(answers), tuple(likeliest), engine.tokenizer)

    def check(self, format: str, probe: Probe, tolerance: Tolerance, fix: Text = FIX) -> Check:
        """Compare an exported model's log-probabilities after the same prefixes with these.

        Raises: ExportError when a difference is above, or the agreement below, the tolerance.
        """
        same = positions = 0
        largest, where = 0.0, tr("no position")
        for number, (prompt, answer) in enumerate(zip(self.prompts, self.answers, strict=True)):
            likeliest = self.likeliest[number]
            for position, (found, (expected, ids)) in enumerate(zip(probe(prompt, answer), likeliest, strict=True)):
                positions += 1
                same += int(found.argmax()) == int(ids[0])
                differences = (found[ids] - expected).abs()[expected > LIKELY]
                worst = float(differences.max())
                if not worst <= largest:  # NaN counts as the worst
                    token = self.tokenizer.decode([int(ids[int(differences.argmax())])])
                    largest = worst if worst == worst else float("inf")
                    where = tr(
                        "prompt {prompt} ({text!r}), position {position}, token {token!r}",
                        prompt=number + 1,
                        text=PROMPTS[number][:30],
                        position=position + 1,
                        token=token,
                    )
        check = Check(format, len(self.prompts), positions, same / max(positions, 1), largest, tolerance, where)
        if not check.passed:
            raise ExportError(
                "The {format} export answers differently: {check}.",
                where,
                tr("Nothing was written. {advice}", advice=fix),
                code=ANSWERS_DIFFER,
                format=format,
                check=check.text,
            )
        return check


def probe_model(model: Any) -> Probe:
    """The log-probabilities of a transformers model, all positions in one pass."""

    @torch.inference_mode()
    def probe(prompt: Sequence[int], answer: Sequence[int]) -> Sequence[Tensor]:
        ids = torch.tensor([[*prompt, *answer[:-1]]])
        logits_TV = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
        return list(logits_TV.float().log_softmax(dim=-1))

    return probe


def probe_folder(folder: Path, source: Source, *, over_base: bool = False) -> Probe:
    """The log-probabilities of an exported folder: a model, or an adapter over its base."""
    if not over_base:
        return probe_model(_plain_model(str(folder), source))
    return probe_model(load_adapter(_plain_model(source.model, source), folder).eval())


def _plain_model(path: str, source: Source) -> Any:
    """In float32 with transformers' own attention, so that none of our kernels can hide a difference."""
    settings = source.config.model.model_copy(update={"model_name_or_path": path, "dtype": "float32", "device": "cpu"})
    model = load_model(settings, trust_remote_code=source.config.permissions.trust_remote_code)
    model.set_attn_implementation("eager")
    return model


@torch.inference_mode()
def _greedy(model: Any, prompt: Sequence[int], stop_ids: Sequence[int]) -> tuple[int, ...]:
    ids, cache = torch.tensor([list(prompt)]), None
    answer: list[int] = []
    for _ in range(ANSWER_TOKENS):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        answer.append(int(output.logits[0, -1].argmax()))
        if answer[-1] in stop_ids:
            break
        ids = torch.tensor([[answer[-1]]])
    return tuple(answer)
