"""Builds OpenAI's response objects from answers, whole or streamed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sartor.inference.engine import Answer, Engine
from sartor.inference.requests import Progress, TokenLogprobs
from sartor.server.schemas import ChatRequest, NamedTool
from sartor.server.tool_calls import read_calls

_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(slots=True)
class Conversation:
    """One request's answers in progress; `name` is the model name that the client used."""

    request: ChatRequest
    name: str
    engine: Engine
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    answers: dict[int, Answer] = field(default_factory=dict)
    tokens: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    said: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Choice → characters of reasoning and of content already sent."""

    def take(self, index: int, progress: Progress) -> None:
        """Keep what a step brought."""
        if progress.token is not None:
            self.tokens.setdefault(index, []).append(progress.token)
        if progress.answer is not None:
            self.answers[index] = progress.answer

    @property
    def texts(self) -> dict[int, str]:
        return {index: answer.text for index, answer in self.answers.items()}

    def whole(self) -> dict[str, Any]:
        """The chat.completion object."""
        choices = [self._choice(index) for index in sorted(self.answers)]
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage()}

    def pieces(self, index: int, progress: Progress) -> list[dict[str, Any]]:
        """The chat.completion.chunk objects for one step of a choice; often none."""
        chunks = []
        if index not in self.said:
            self.said[index] = (0, 0)
            chunks.append(self._chunk(index, {"role": "assistant", "content": ""}))
        chosen = [progress.token] if progress.token is not None else []
        self.take(index, progress)
        delta: dict[str, Any] = {}
        if progress.answer is not None:
            delta, finish = self._last(index, progress.answer)
        elif not self.request.wants_calls and progress.text:
            delta, finish = self._new(index, *_split(progress.text)), None
        else:
            finish = None
        if delta or chosen:
            chunks.append(self._chunk(index, delta, logprobs=chosen))
        if finish:
            chunks.append(self._chunk(index, {}, finish=finish, fingerprint=self.answers[index].fingerprint))
        return chunks

    def usage(self) -> dict[str, Any]:
        answers = list(self.answers.values())
        prompt, written = max(a.prompt_tokens for a in answers), sum(a.tokens for a in answers)
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def usage_chunk(self) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage()}

    def _head(self, kind: str) -> dict[str, Any]:
        head: dict[str, Any] = {"id": self.id, "object": kind, "created": self.created, "model": self.name}
        if self.answers:
            head["system_fingerprint"] = f"fp_{next(iter(self.answers.values())).fingerprint}"
        return head

    def _choice(self, index: int) -> dict[str, Any]:
        answer = self.answers[index]
        content, calls = self._read(answer)
        message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else "")}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if calls:
            message["tool_calls"] = calls
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(self.tokens.get(index, [])),
            "finish_reason": self._finish(answer, bool(calls)),
        }

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        *,
        logprobs: Sequence[TokenLogprobs] = (),
        finish: str | None = None,
        fingerprint: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": dict(delta), "finish_reason": finish, "logprobs": self._logprobs(logprobs)}
        head = self._head("chat.completion.chunk")
        return {**head, **({"system_fingerprint": f"fp_{fingerprint}"} if fingerprint else {}), "choices": [choice]}

    def _read(self, answer: Answer) -> tuple[str, list[dict[str, Any]]]:
        if not self.request.wants_calls:
            return answer.text, []
        tools = [tool.model_dump(exclude_none=True) for tool in self.request.tools or ()]
        text, found = self.engine.calls_of(answer, tools)
        calls = [(call.name, json.dumps(dict(call.arguments), ensure_ascii=False)) for call in found]
        if not calls:
            text, calls = read_calls(answer.text, frozenset(tool["function"]["name"] for tool in tools))
        return text, [
            {
                "id": f"call_{secrets.token_hex(12)}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for name, arguments in calls
        ]

    def _last(self, index: int, answer: Answer) -> tuple[dict[str, Any], str]:
        """The delta that completes a choice, and its finish reason. Tool calls are sent whole."""
        content, calls = self._read(answer)
        delta = self._new(index, answer.reasoning or "", content)
        if calls:
            delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(calls)]
        return delta, self._finish(answer, bool(calls))

    def _finish(self, answer: Answer, calls: bool) -> str:
        """OpenAI's reasons: a call that was forced by name ends with `stop`."""
        if answer.stop_reason != "stop":
            return "length"
        return "tool_calls" if calls and not isinstance(self.request.tool_choice, NamedTool) else "stop"

    def _new(self, index: int, reasoning: str, content: str) -> dict[str, Any]:
        had_reasoning, had_content = self.said[index]
        delta: dict[str, Any] = {}
        if len(reasoning) > had_reasoning:
            delta["reasoning_content"] = reasoning[had_reasoning:]
        if len(content) > had_content:
            delta["content"] = content[had_content:]
        self.said[index] = (max(had_reasoning, len(reasoning)), max(had_content, len(content)))
        return delta

    def _logprobs(self, tokens: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
        if not self.request.logprobs or not tokens:
            return None
        return {
            "content": [
                self._token(t.id, t.logprob) | {"top_logprobs": [self._token(*p) for p in t.top]} for t in tokens
            ]
        }

    def _token(self, id: int, logprob: float) -> dict[str, Any]:
        text = self.engine.tokenizer.decode([id])
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode("utf-8", "replace"))}


def _split(text: str) -> tuple[str, str]:
    """(reasoning, content) of a partial text; what may become a marker is held back."""
    start = text.lstrip()
    if _OPEN.startswith(start[: len(_OPEN)]) and len(start) < len(_OPEN):
        return "", ""
    if not start.startswith(_OPEN):
        return "", text
    reasoning, closed, content = start[len(_OPEN) :].partition(_CLOSE)
    if closed:
        return reasoning.strip("\n"), content.lstrip()
    held = max((n for n in range(1, len(_CLOSE)) if reasoning.endswith(_CLOSE[:n])), default=0)
    return reasoning[: len(reasoning) - held].lstrip("\n").rstrip("\n"), ""


def error(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
