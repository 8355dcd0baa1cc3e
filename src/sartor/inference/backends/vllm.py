"""vLLM as another way to the same answers: it must agree with the Engine on eight rows before it answers the rest."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sartor.base.config import RunConfig
from sartor.base.errors import ModelError, PromptError
from sartor.base.process import release_memory
from sartor.base.settings import GenerationSettings
from sartor.base.types import TokenSequence
from sartor.inference.engine import Answer, Engine, Row
from sartor.inference.weights import WeightSet
from sartor.model.head import logits

AGREE_ROWS, AGREE_TOKENS = 8, 32
NEAR_TIE = 0.25
"""Nats. Two 16-bit programs may choose differently between tokens so nearly alike; beyond it they disagree."""
ROWS_AT_ONCE = 512
"""Rows handed over together; answers come back, and are journalled, when all of them are done."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was compared before: rows, equal tokens, and the rows that part at a near tie."""

    rows: int
    equal_tokens: int
    near_ties: int


class VllmBackend:
    """Answers with the Engine's own weights, merged, and the Engine's own stops and texts. Made by `open_vllm`."""

    def __init__(self, engine: Engine, llm: Any, vllm: Any, agreement: Agreement) -> None:
        self.engine, self.llm, self.vllm, self.agreement = engine, llm, vllm, agreement

    def generate(
        self,
        prompts: Sequence[TokenSequence],
        generation: GenerationSettings,
        *,
        weights: WeightSet = "tuned",
        seed: int = 0,
        on_done: Callable[[int, Answer], None] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[Answer]:
        """As `Engine.generate`; a row's random numbers are keyed by (seed, row) here too, but are vLLM's."""
        answers: list[Answer] = []
        self.engine.weights.use(weights)
        for start in range(0, len(prompts), ROWS_AT_ONCE):
            part = prompts[start : start + ROWS_AT_ONCE]
            seeds = [seed * 1_000_003 + (numbers[start + n] if numbers else start + n) for n in range(len(part))]
            for offset, written in enumerate(_generate(self.llm, self.vllm, self.engine, part, generation, seeds)):
                answer = _answer(self.engine, part[offset], written, generation)
                answers.append(answer)
                if on_done:
                    on_done(start + offset, answer)
        return answers


@contextmanager
def open_vllm(
    engine: Engine,
    prompts: Sequence[TokenSequence],
    generation: GenerationSettings,
    *,
    weights: WeightSet = "tuned",
    config: RunConfig,
    seed: int = 0,
) -> Iterator[VllmBackend]:
    """vLLM with the weights that the engine answers with (merged ones from a folder that is deleted afterwards).

    The engine's model leaves the GPU first, and has only these weights from then on.
    Raises: ModelError when vLLM is not installed, cannot load the model, or does not agree on the first rows.
    """
    if config.model.quantization_bit:
        raise ModelError(
            "vLLM cannot load a model with quantization_bit.", "infer_backend: vllm", "Remove one of the two settings."
        )
    try:
        vllm = importlib.import_module("vllm")
    except ImportError as error:
        raise ModelError(
            f"vLLM cannot be loaded: {error}.",
            "infer_backend: vllm",
            "Run: pip install 'sartor[vllm]', or leave infer_backend out.",
        ) from None
    some = list(prompts[:AGREE_ROWS])
    greedy = GenerationSettings(max_new_tokens=min(AGREE_TOKENS, generation.max_new_tokens))
    ours = engine.generate(some, greedy, weights=weights)
    chances = [_log_chances(engine, prompt, answer.ids) for prompt, answer in zip(some, ours, strict=True)]
    with tempfile.TemporaryDirectory(prefix="sartor-vllm-") as name:
        folder, merged = config.model.model_name_or_path, engine.weights.has_both
        engine.weights.discard_other(weights)
        if merged:
            folder = name
            engine.model.save_pretrained(name)
            engine.tokenizer.save_pretrained(name)
        engine.model.to("cpu")
        release_memory()
        longest = max((len(prompt) for prompt in prompts), default=1) + generation.max_new_tokens
        try:
            llm = vllm.LLM(
                model=folder,
                skip_tokenizer_init=True,
                dtype=str(engine.model.dtype).removeprefix("torch."),
                max_model_len=longest,
                seed=seed,
                trust_remote_code=config.permissions.trust_remote_code,
                **({} if merged else {"revision": config.model.model_revision}),
            )
        except Exception as error:  # vLLM raises whatever its parts raise
            why = str(error).partition("\n")[0] or type(error).__name__
            raise ModelError(f"vLLM cannot load the model: {why}.", folder, "Leave infer_backend out.") from error
        theirs = _generate(llm, vllm, engine, some, greedy, [seed] * len(some))
        agreement = _agree([answer.ids for answer in ours], [ids for ids, _ in theirs], chances, engine)
        yield VllmBackend(engine, llm, vllm, agreement)


def _generate(
    llm: Any,
    vllm: Any,
    engine: Engine,
    prompts: Sequence[TokenSequence],
    generation: GenerationSettings,
    seeds: Sequence[int],
) -> list[tuple[list[int], str]]:
    """(ids, why it ended) of each prompt, in order."""
    drawn = generation.do_sample and generation.temperature > 0
    parameters = [
        vllm.SamplingParams(
            max_tokens=generation.max_new_tokens,
            temperature=generation.temperature if drawn else 0.0,
            top_p=generation.top_p if drawn else 1.0,
            top_k=(generation.top_k or -1) if drawn else -1,
            repetition_penalty=generation.repetition_penalty,
            stop_token_ids=list(engine.encoder.stop_ids),
            ignore_eos=True,
            detokenize=False,
            seed=seed,
        )
        for seed in seeds
    ]
    texts = [{"prompt_token_ids": prompt.ids.tolist()} for prompt in prompts]
    outputs = llm.generate(texts, parameters, use_tqdm=False)
    if len(outputs) != len(prompts):
        raise PromptError(f"vLLM answered {len(outputs)} of {len(prompts)} rows.", "vllm", "Leave infer_backend out.")
    return [(list(map(int, output.outputs[0].token_ids)), output.outputs[0].finish_reason) for output in outputs]


def _answer(
    engine: Engine, prompt: TokenSequence, written: tuple[list[int], str], generation: GenerationSettings
) -> Answer:
    """The ids through the Engine's own stops: what is beyond a stop string is not the answer."""
    ids, reason = written
    row = Row(0, prompt.ids.tolist(), generation.max_new_tokens, [])
    for token in ids:
        engine.take(row, token, generation)
        if row.stop_reason == "stop":
            break
    if reason == "stop" and row.stop_reason != "stop":  # a stop token that was not handed out
        row.stop_reason, row.text = "stop", engine.text_of(row.ids)
    return engine.answer_of(row, generation)


@torch.inference_mode()
def _log_chances(engine: Engine, prompt: TokenSequence, ids: Sequence[int]) -> Tensor:
    """Log-probabilities_TV (float32, on the CPU) with which the engine chose each of its tokens."""
    both = torch.tensor([[*prompt.ids.tolist(), *ids]], device=engine.device)
    hidden_TD = engine.model.base_model(input_ids=both).last_hidden_state[0, len(prompt) - 1 : -1]
    return logits(engine.model, hidden_TD).float().log_softmax(-1).cpu()


def _agree(
    ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], chances: Sequence[Tensor], engine: Engine
) -> Agreement:
    """Raises: ModelError naming row and token where the answers part and the choice was no near tie."""
    equal = ties = 0
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True), 1):
        place = next((at for at, pair in enumerate(zip(mine, other)) if pair[0] != pair[1]), min(len(mine), len(other)))
        equal += place
        if place == len(mine) or place == len(other):
            continue
        lost = float(chances[number - 1][place][mine[place]] - chances[number - 1][place][other[place]])
        if lost > NEAR_TIE:
            said = [repr(engine.tokenizer.decode([ids[place]])) for ids in (mine, other)]
            raise ModelError(
                f"vLLM does not agree: row {number}, token {place + 1} is {said[1]}, here {said[0]} "
                f"({lost:.2f} nats likelier).",
                "infer_backend: vllm",
                "Leave infer_backend out.",
            )
        ties += 1
    return Agreement(len(ours), equal, ties)
