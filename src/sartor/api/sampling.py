"""Answers fixed prompts during training, so that one can see the model change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sartor.base.config import RunConfig
from sartor.base.types import Message
from sartor.prompt.encode import Encoder
from sartor.training.stages import STAGES

Sampler = Callable[[], list[tuple[str, str]]]


def make_sampler(model: Any, encoder: Encoder, config: RunConfig) -> Sampler | None:
    """What answers `sample_prompts` with the weights as they are, or None: not asked for, or not possible
    (a reward model writes nothing; sharded weights answer nowhere)."""
    prompts = config.train.sample_prompts
    if (
        not config.train.sample_steps
        or not prompts
        or STAGES.get(config.method.stage).head != "text"
        or config.train.fsdp
    ):
        return None
    from sartor.inference.engine import Engine
    from sartor.inference.weights import Weights
    from sartor.model.head import causal_model

    engine = Engine(Weights(causal_model(model)), encoder.tokenizer, encoder)
    conversations = [(Message("user", prompt),) for prompt in prompts]

    def sample() -> list[tuple[str, str]]:
        answers = engine.generate(conversations, config.generation, seed=config.train.seed)
        return [(prompt, answer.text) for prompt, answer in zip(prompts, answers, strict=True)]

    return sample
