"""Models kept in memory for the chat page, each with one thread that answers; it draws nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.api.resolve_target import config_for
from sartor.base.errors import SartorError
from sartor.base.rundir import RunDir
from sartor.base.settings import GenerationSettings
from sartor.base.types import Message
from sartor.web.endpoints import RemoteAnswer
from sartor.web.workspace import Workspace

if TYPE_CHECKING:
    from sartor.inference.batcher import Batcher, Progress, Ticket
    from sartor.inference.engine import Answer

MAX_LOADED = 2
"""Models in memory at once; a third one takes the place of the one used longest ago."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a column talks to: a run's weights or its base, a checkpoint, or a model."""

    name: str
    path: str
    tuned: bool
    part: str = ""
    """`tuned` or `base` where a run has both."""
    remote: bool = False
    """An address that a person types; `path` is empty."""


@dataclass(slots=True)
class Reply:
    """An answer as it grows; written by the model's thread, read by the window."""

    text: str = ""
    tokens: int = 0
    began: float = 0.0
    first: float | None = None
    ended: float | None = None
    answer: Answer | RemoteAnswer | None = None
    error: SartorError | None = None
    ticket: Ticket | asyncio.Task[None] | None = None
    stopped: bool = False

    @property
    def done(self) -> bool:
        return self.answer is not None or self.error is not None

    @property
    def speed(self) -> float | None:
        """Tokens a second after the first."""
        if self.first is None or self.tokens < 2:
            return None
        return (self.tokens - 1) / max(1e-6, (self.ended or time.monotonic()) - self.first)

    def take(self, told: Progress) -> None:
        if told.error:
            self.fail(SartorError(told.error, "", ""))
        elif told.answer is not None:
            self.first = self.first or time.monotonic()
            self.end(told.answer)
        else:
            self.grow(told.text)

    def grow(self, text: str) -> None:
        """One more token; all the text so far."""
        self.text = text
        self.tokens += 1
        self.first = self.first or time.monotonic()

    def end(self, answer: Answer | RemoteAnswer) -> None:
        self.text, self.tokens, self.ended, self.answer = answer.text, answer.tokens, time.monotonic(), answer

    def fail(self, error: SartorError) -> None:
        self.error, self.ended = error, time.monotonic()

    def stop(self) -> None:
        self.stopped = True
        if self.ticket:
            self.ticket.cancel()


@dataclass(slots=True)
class ChatModels:
    """Loads what a column asks for and puts its turns in line."""

    desk: Workspace
    kept: OrderedDict[tuple[str, bool | None], Batcher] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def targets(self) -> list[Target]:
        """Everything that can be talked to, newest runs first, an endpoint last."""
        found = []
        folders = [p.parent for p in self.desk.runs.glob("*/config.yaml")]
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
            place = f"runs/{folder.name}"
            if (folder / "adapter_config.json").exists():
                found += [Target(folder.name, place, part == "tuned", part) for part in ("tuned", "base")]
            elif any(folder.glob("model*.safetensors")):
                found.append(Target(folder.name, place, True, "tuned"))
            found += [
                Target(f"{folder.name} · {c.name}", f"{place}/{c.name}", True) for c in RunDir(folder).checkpoints()
            ]
        found += [Target(Path(model).name, model, True) for model in self.desk.models()]
        return [*found, Target("endpoint", "", False, remote=True)]

    def ask(
        self,
        target: Target,
        turns: Sequence[Message],
        generation: GenerationSettings,
        reply: Reply,
        *,
        seed: int = 0,
        thinking: bool | None = None,
        tools: Sequence[Any] = (),
    ) -> None:
        """Put a turn in line; `reply` grows from the model's thread. Errors are put into it."""
        from sartor.inference.batcher import Request

        try:
            batcher = self._loaded(target.path, thinking)
            prompt = batcher.engine.prompt(turns, tools)
            request = Request(tuple(prompt.ids.tolist()), generation, "tuned" if target.tuned else "base", seed)
            reply.began = time.monotonic()
            if not reply.stopped:
                (ticket,) = batcher.submit([request], lambda _, told: reply.take(told))
                reply.ticket = ticket
        except SartorError as error:
            reply.fail(error)
        if reply.stopped and reply.ticket:
            reply.ticket.cancel()

    def _loaded(self, path: str, thinking: bool | None) -> Batcher:
        from sartor.api.predicting import load_engine
        from sartor.inference.batcher import Batcher

        with self.lock:
            key = (path, thinking)
            if key not in self.kept:
                while len(self.kept) >= MAX_LOADED:
                    self.kept.popitem(last=False)[1].close()
                overrides = [] if thinking is None else [f"enable_thinking={str(thinking).lower()}"]
                self.kept[key] = Batcher(load_engine(config_for(path, overrides)))
            self.kept.move_to_end(key)
            return self.kept[key]
