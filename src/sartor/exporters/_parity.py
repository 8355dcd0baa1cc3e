"""The proof of an export: eight prompts answered by the adapter over the base, and what another form makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sartor.base.errors import ExportError
from sartor.exporters._source import Check, Source
from sartor.model.load import load_adapter, load_model

PROMPTS = (
    "What is the capital of France?",
    "用一句话介绍你自己。",
    "Write a haiku about rain.",
    "3 + 4 × 12 = ?",
    "把“早上好”翻译成英语。",
    "List three primary colours, one per line.",
    "Why is the sky blue? Answer briefly. 🌤️",
    "def add(a, b):\n\treturn a + b\n\n# 1234567 — what does this code do?",
)
FIX = "Please report it with the model's config.json; --to adapter keeps your work."
ANSWER_TOKENS = 16
LIKELIEST = 10
"""At each position at most so many tokens of the reference are compared …"""
LIKELY = -7.0
"""… and of them those with a probability above 0.1 %: the rest can hardly be drawn, and its logits drift most."""

Ask = Callable[[Sequence[int], Sequence[int]], Sequence[Tensor]]
"""(prompt ids, answer ids) → log-probabilities [V] at each position of the answer."""


@dataclass(frozen=True, slots=True)
class ReferenceAnswers:
    """The greedy answers of the adapter over the base in float32, unmerged: what was trained."""

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
            top = [values.topk(LIKELIEST) for values in ask_model(model)(prompt, answer)]
            answers.append(answer)
            likeliest.append(tuple((found.values, found.indices) for found in top))
        return cls(tuple(prompts), tuple(answers), tuple(likeliest), engine.tokenizer)

    def check(self, form: str, ask: Ask, limit: float, least: float, fix: str = FIX) -> Check:
        """Hold another form's answers to the same prefixes beside these.

        Raises: ExportError when a logit differs by more than `limit`, or fewer than `least` of the tokens agree.
        """
        same = positions = 0
        largest, where = 0.0, "nowhere"
        for number, (prompt, answer) in enumerate(zip(self.prompts, self.answers, strict=True)):
            for place, (found, (expected, ids)) in enumerate(
                zip(ask(prompt, answer), self.likeliest[number], strict=True)
            ):
                positions += 1
                same += int(found.argmax()) == int(ids[0])
                differences = (found[ids] - expected).abs()[expected > LIKELY]
                worst = float(differences.max())
                if not worst <= largest:  # NaN counts as the worst
                    token = self.tokenizer.decode([int(ids[int(differences.argmax())])])
                    largest = worst if worst == worst else float("inf")
                    where = f"prompt {number + 1} ({PROMPTS[number][:30]!r}), position {place + 1}, token {token!r}"
        check = Check(form, len(self.prompts), positions, same / max(positions, 1), largest, limit, least, where)
        if not check.holds:
            raise ExportError(
                f"The {form} export answers differently: {check}.",
                where,
                f"Nothing was written. {fix}",
            )
        return check


def ask_model(model: Any) -> Ask:
    """Ask a transformers model, all positions in one pass."""

    @torch.inference_mode()
    def ask(prompt: Sequence[int], answer: Sequence[int]) -> Sequence[Tensor]:
        ids = torch.tensor([[*prompt, *answer[:-1]]])
        logits_TV = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
        return list(logits_TV.float().log_softmax(dim=-1))

    return ask


def ask_folder(folder: Path, source: Source, *, over_base: bool = False) -> Ask:
    """Ask what was written: a model's folder, or an adapter's over its base."""
    if not over_base:
        return ask_model(_plain_model(str(folder), source))
    return ask_model(load_adapter(_plain_model(source.model, source), folder).eval())


def _plain_model(path: str, source: Source) -> Any:
    """In float32 with transformers' own attention: nothing of ours stands between the file and the numbers."""
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
