"""The gate before another engine answers: on the first rows it must write what ours writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sartor.base.errors import ModelError
from sartor.base.settings import GenerationSettings
from sartor.base.types import TokenSequence
from sartor.inference.engine import Engine
from sartor.inference.weights import WeightSet
from sartor.model.head import backbone, logits

AGREE_ROWS, AGREE_TOKENS = 8, 32
NEAR_TIE = 0.25
"""Nats. Two 16-bit programs may choose differently between tokens this close; above it they disagree."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the gate compared: rows, equal tokens, and rows that differ first at a near tie."""

    rows: int
    equal_tokens: int
    near_ties: int


class AgreementGate:
    """The first prompts (eight, or all), answered greedily by our engine; the other must give the same tokens.

    Where our engine found two tokens nearly equally likely (within `NEAR_TIE`), either may be chosen, and the rest of
    that row is not compared.
    """

    def __init__(
        self, engine: Engine, prompts: Sequence[TokenSequence], generation: GenerationSettings, weights: WeightSet
    ) -> None:
        """Answers with `engine`, which may lose its other weights and its place on the GPU afterwards."""
        self.engine = engine
        self.prompts = list(prompts[:AGREE_ROWS])
        self.greedy = GenerationSettings(max_new_tokens=min(AGREE_TOKENS, generation.max_new_tokens))
        answers = engine.generate(self.prompts, self.greedy, weights=weights)
        self._ours = [answer.ids for answer in answers]
        self._log_chances = [_log_chances(engine, *pair) for pair in zip(self.prompts, self._ours, strict=True)]

    def check(self, backend: str, theirs: Sequence[Sequence[int]]) -> Agreement:
        """What was compared with `theirs`, the tokens of each prompt under `greedy`.

        Raises: ModelError naming the backend, and row and token where the answers differ first without a near tie.
        """
        equal = ties = 0
        for number, (mine, other) in enumerate(zip(self._ours, theirs, strict=True), 1):
            shorter = min(len(mine), len(other))
            place = next((at for at in range(shorter) if mine[at] != other[at]), shorter)
            equal += place
            if place == shorter:
                continue
            chances_V = self._log_chances[number - 1][place]
            lost = float(chances_V[mine[place]] - chances_V[other[place]])
            if lost > NEAR_TIE:
                theirs_token, our_token = (self.engine.tokenizer.decode([ids[place]]) for ids in (other, mine))
                raise ModelError(
                    "{backend} disagrees: in row {row}, token {token} is {theirs!r}, but {ours!r} is {nats} nats more "
                    "likely.",
                    f"infer_backend: {backend.lower()}",
                    "Remove infer_backend.",
                    backend=backend,
                    row=number,
                    token=place + 1,
                    theirs=theirs_token,
                    ours=our_token,
                    nats=f"{lost:.2f}",
                )
            ties += 1
        return Agreement(len(self._ours), equal, ties)


@torch.inference_mode()
def _log_chances(engine: Engine, prompt: TokenSequence, ids: Sequence[int]) -> Tensor:
    """Log-probabilities_TV (float32, on the CPU) with which the engine chose each of its tokens."""
    both = torch.tensor([[*prompt.ids.tolist(), *ids]], device=engine.device)
    hidden_TD = backbone(engine.model)(input_ids=both).last_hidden_state[0, len(prompt) - 1 : -1]
    return logits(engine.model, hidden_TD).float().log_softmax(-1).cpu()
