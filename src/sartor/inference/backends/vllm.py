"""vLLM, which answers the rows of `predict` when it agrees with our engine."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sartor.base.errors import ModelError, PromptError
from sartor.base.process import release_memory
from sartor.base.settings import GenerationSettings
from sartor.base.types import TokenSequence
from sartor.inference.agreement import Agreement, AgreementGate
from sartor.inference.backends import Backend, BackendRequest, BackendSession
from sartor.inference.engine import Answer, Engine, Row
from sartor.inference.weights import WeightSet

ROWS_AT_ONCE = 512
"""Rows passed to vLLM together; their answers come back, and are journaled, when all are done."""


class VllmSession(BackendSession):
    """Answers with the engine's weights, merged, and the engine's stops and texts."""

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
        """As `Engine.generate`; a row's random numbers are keyed by (seed, row) here too, but are vLLM's own."""
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


class _Vllm(Backend):
    name = "vllm"

    def open(self, request: BackendRequest) -> AbstractContextManager[BackendSession]:
        """Merged weights go through a folder that is deleted afterwards."""
        return _open(request)


@contextmanager
def _open(request: BackendRequest) -> Iterator[VllmSession]:
    settings = request.config.model
    if settings.quantization_bit:
        raise ModelError(
            "vLLM cannot load a model with quantization_bit.", "infer_backend: vllm", "Remove one of the two settings."
        )
    try:
        vllm = importlib.import_module("vllm")
    except ImportError as error:
        raise ModelError(
            "Could not import vLLM: {reason}.",
            "infer_backend: vllm",
            "Run: pip install 'sartor[vllm]', or remove infer_backend.",
            reason=str(error),
        ) from None
    engine, generation, prompts = request.engine, request.generation, request.prompts
    gate = AgreementGate(engine, prompts, generation, request.weights)
    with tempfile.TemporaryDirectory(prefix="sartor-vllm-") as name:
        folder, merged = settings.model_name_or_path, engine.weights.has_both
        engine.weights.discard_other(request.weights)
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
                seed=request.seed,
                trust_remote_code=request.config.permissions.trust_remote_code,
                **({} if merged else {"revision": settings.model_revision}),
            )
        except Exception as error:  # vLLM raises whatever its parts raise
            why = str(error).partition("\n")[0] or type(error).__name__
            raise ModelError(
                "vLLM cannot load the model: {reason}.", folder, "Remove infer_backend.", reason=why
            ) from error
        theirs = _generate(llm, vllm, engine, gate.prompts, gate.greedy, [request.seed] * len(gate.prompts))
        yield VllmSession(engine, llm, vllm, gate.check("vLLM", [ids for ids, _ in theirs]))


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
        raise PromptError(
            "vLLM answered {answered} of {rows} rows.",
            "vllm",
            "Remove infer_backend.",
            answered=len(outputs),
            rows=len(prompts),
        )
    return [(list(map(int, output.outputs[0].token_ids)), output.outputs[0].finish_reason) for output in outputs]


def _answer(
    engine: Engine, prompt: TokenSequence, written: tuple[list[int], str], generation: GenerationSettings
) -> Answer:
    """The ids through the engine's own stops: what follows a stop string is not part of the answer."""
    ids, reason = written
    row = Row(0, prompt.ids.tolist(), generation.max_new_tokens, [])
    for token in ids:
        engine.take(row, token, generation)
        if row.stop_reason == "stop":
            break
    if reason == "stop" and row.stop_reason != "stop":  # a stop token that was not handed out
        row.stop_reason, row.text = "stop", engine.text_of(row.ids)
    return engine.answer_of(row, generation)


PLUGIN = _Vllm()
