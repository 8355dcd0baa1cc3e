"""A GGUF file in llama.cpp (the xllamacpp wheel): token ids, rendered prompts and log-probabilities."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import Tensor

from sartor.base.errors import ExportError

LISTED = 512
"""Tokens listed at each position; any other token counts as the last one listed."""


class LlamaCpp:
    """One GGUF file, served by llama.cpp on loopback until the `with` block ends."""

    def __init__(self, path: Path, vocabulary: int, context: int = 1024) -> None:
        if find_spec("xllamacpp") is None:
            raise ExportError(
                "Checking a GGUF file needs llama.cpp, which is not installed.",
                "xllamacpp",
                "Run: pip install xllamacpp (a wheel; it needs no compiler). Or add --no-check.",
            )
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx, parameters.n_parallel, parameters.warmup = context, 1, False
        parameters.n_gpu_layers, parameters.verbosity = 0, -1
        parameters.cpuparams.n_threads = max(1, (os.cpu_count() or 2) // 2)
        self.vocabulary = vocabulary
        try:
            self._server: Any = xllamacpp.Server(parameters)
        except RuntimeError as error:
            raise ExportError(
                "llama.cpp cannot load the file: {reason}",
                str(path),
                "Use --to merged, and please report it.",
                reason=str(error),
            ) from None
        self._http = httpx.Client(base_url=self._server.listening_address, trust_env=False, timeout=60.0)
        self._letter = self.tokens("a")[-1]

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *raised: object) -> None:
        self._http.close()
        del self._server

    def tokens(self, text: str) -> list[int]:
        """The ids of a text; control tokens in it are parsed, none is added."""
        ids: list[int] = self._post("/tokenize", {"content": text, "parse_special": True, "add_special": False})[
            "tokens"
        ]
        return ids

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The generation prompt that llama.cpp makes with the template inside the file."""
        return str(self._post("/apply-template", {"messages": list(messages)})["prompt"])

    def chat(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> str:
        """A greedy answer through llama.cpp's own chat endpoint."""
        answer = self._post(
            "/v1/chat/completions", {"messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
        )
        return str(answer["choices"][0]["message"]["content"])

    def log_probabilities(self, prompt: Sequence[int], answer: Sequence[int]) -> Sequence[Tensor]:
        """Log-probabilities [V] at each position of the answer; a token not listed has the last one listed."""
        return [self._next([*prompt, *answer[:position]]) for position in range(len(answer))]

    def _next(self, ids: list[int]) -> Tensor:
        # Probabilities are reported before the bias, but not for part of a character: so force a letter.
        request = {
            "prompt": ids,
            "n_predict": 1,
            "n_probs": min(LISTED, self.vocabulary),
            "temperature": 0.0,
            "logit_bias": [[self._letter, 1e4]],
            "cache_prompt": True,
        }
        listed = self._post("/completion", request)["completion_probabilities"][0]["top_logprobs"]
        values = torch.full((self.vocabulary,), listed[-1]["logprob"])
        values[[entry["id"] for entry in listed]] = torch.tensor([entry["logprob"] for entry in listed])
        return values

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        response = self._http.post(path, json=body)
        if response.status_code != 200:
            raise ExportError(
                "llama.cpp rejected a request: {reason}", path, "Use --to merged.", reason=response.text[:200]
            )
        return response.json()
