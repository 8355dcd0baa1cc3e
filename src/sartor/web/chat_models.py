"""Models kept in memory for the chat page, each with a thread that generates."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.api.predicting import load_engine
from sartor.api.resolve_target import config_for
from sartor.base.errors import SartorError
from sartor.base.rundir import RunDir
from sartor.base.settings import GenerationSettings
from sartor.base.types import Message
from sartor.web.form import check_model
from sartor.web.reply import Reply
from sartor.web.workspace import Workspace

if TYPE_CHECKING:
    from sartor.inference.batcher import Batcher

MAX_LOADED = 2
"""Models in memory at once; the least recently used one is closed first."""


@dataclass(frozen=True, slots=True)
class Target:
    """The model of a column: a run's weights or its base, a checkpoint, a model, or an endpoint."""

    name: str
    path: str
    tuned: bool
    part: str = ""
    """`tuned` or `base` where a run has both."""
    remote: bool = False
    """An endpoint whose address is typed into the column; `path` is empty."""


@dataclass(slots=True)
class ChatModels:
    """Loads the model of a column and queues its turns."""

    workspace: Workspace
    kept: OrderedDict[tuple[str, bool | None], Batcher] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def targets(self) -> list[Target]:
        """Every model that can be chatted with: newest runs first, an endpoint last."""
        found = []
        folders = [p.parent for p in self.workspace.runs.glob("*/config.yaml")]
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
            place = f"runs/{folder.name}"
            if (folder / "adapter_config.json").exists():
                found += [Target(folder.name, place, part == "tuned", part) for part in ("tuned", "base")]
            elif any(folder.glob("model*.safetensors")):
                found.append(Target(folder.name, place, True, "tuned"))
            found += [
                Target(f"{folder.name} · {c.name}", f"{place}/{c.name}", True) for c in RunDir(folder).checkpoints()
            ]
        found += [Target(Path(model).name, model, True) for model in self.workspace.models()]
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
        """Queue a turn; `reply` grows from the model's thread. Errors are put into it."""
        from sartor.inference.requests import Request

        try:
            batcher = self._loaded(target.path, thinking)
            batcher.require_fit(sum(len(turn.text) + len(turn.reasoning or "") for turn in turns))
            prompt = batcher.engine.prompt(turns, tools)
            request = Request(tuple(prompt.ids.tolist()), generation, "tuned" if target.tuned else "base", seed)
            reply.began = time.monotonic()
            if not reply.stopped:
                (ticket,) = batcher.submit([request], lambda _, progress: reply.take(progress))
                reply.ticket = ticket
        except SartorError as error:
            reply.fail(error)
        if reply.stopped and reply.ticket:
            reply.ticket.cancel()

    def _loaded(self, path: str, thinking: bool | None) -> Batcher:
        from sartor.inference.batcher import Batcher

        with self.lock:
            key = (path, thinking)
            if key not in self.kept:
                while len(self.kept) >= MAX_LOADED:
                    self.kept.popitem(last=False)[1].close()
                overrides = [] if thinking is None else [f"enable_thinking={str(thinking).lower()}"]
                config = config_for(path, overrides)
                check_model(self.workspace, config)
                self.kept[key] = Batcher(load_engine(config))
            self.kept.move_to_end(key)
            return self.kept[key]
