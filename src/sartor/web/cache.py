"""Datasets and encoders kept between requests; they are loaded again when their files change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sartor import api
from sartor.api.prepare_data import make_encoder
from sartor.base.config import RunConfig
from sartor.base.errors import DataError
from sartor.base.types import Demonstration, Document, Example, Feedback, Preference
from sartor.data.dataset_info import read_registry
from sartor.data.load import Loaded
from sartor.prompt.encode import Encoder
from sartor.web.form import check_paths
from sartor.web.workspace import Workspace

MAX_ENTRIES = 4


@dataclass(slots=True)
class Cache:
    """The last few values made, by key. Thread-safe: a value is made once."""

    workspace: Workspace
    kept: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        with self.lock:
            if key not in self.kept:
                self.kept[key] = make()
                while len(self.kept) > MAX_ENTRIES:
                    self.kept.popitem(last=False)
            self.kept.move_to_end(key)
            return self.kept[key]

    def dataset(self, name: str) -> Loaded:
        """The loaded dataset. Raises: DataError."""
        loaded: Loaded = self.keep(("dataset", name, *self._stamp(name)), lambda: self._load(name))
        return loaded

    def _load(self, name: str) -> Loaded:
        try:
            return api.load(name, self.workspace.data, stage=self._stage(name))
        except DataError as error:
            if error.code != "documents":
                raise
            return api.load(name, self.workspace.data, stage="pt")

    def encoder(self, model: str, template: str | None) -> Encoder:
        """The encoder of a model's tokenizer and a template.

        Raises: ConfigError for a model outside the workspace, ModelError, PromptError.
        """
        settings = {"model_name_or_path": model, "template": template}
        config = RunConfig.from_dict({k: v for k, v in settings.items() if v is not None})
        check_paths(self.workspace, config)
        made: Encoder = self.keep(("encoder", model, template), lambda: make_encoder(config))
        return made

    def _stamp(self, name: str) -> tuple[Any, ...]:
        """A key that changes when the registry entry or the data file does."""
        registry = read_registry(self.workspace.data)
        file = registry.spec(name).file_name
        path = self.workspace.data / file if file else registry.path
        stat = path.stat() if path.exists() else None
        return (registry.path.stat().st_mtime_ns, stat and stat.st_mtime_ns, stat and stat.st_size)

    def _stage(self, name: str) -> str:
        """The training stage that the dataset is for; it decides how rows are read."""
        spec = read_registry(self.workspace.data).spec(name)
        if spec.ranking:
            return "dpo"
        return "kto" if spec.columns.get("kto_tag") else "sft"


def turns(example: Example) -> list[tuple[str, str]]:
    """(role, text) of each turn of an example, for display and search."""
    match example:
        case Demonstration(messages=messages) | Feedback(messages=messages):
            return [(message.role, _content(message)) for message in messages]
        case Preference(prompt=prompt, chosen=chosen, rejected=rejected):
            shared = [(message.role, message.text) for message in prompt]
            return [*shared, ("assistant ✓", chosen.text), ("assistant ✗", rejected.text)]
        case Document(text=text):
            return [("text", text)]


def _content(message: Any) -> str:
    calls = [f"{call.name}({dict(call.arguments)})" for call in message.tool_calls]
    reasoning = [f"<think>{message.reasoning}</think>"] if message.reasoning else []
    return "\n".join([*reasoning, *([message.text] if message.text else []), *calls])


def find(loaded: Loaded, query: str) -> list[int]:
    """Positions of the examples that contain the text, ignoring case; all of them for an empty text."""
    if not query:
        return list(range(len(loaded.examples)))
    low = query.casefold()
    return [i for i, e in enumerate(loaded.examples) if any(low in content.casefold() for _, content in turns(e))]


def relative(workspace: Workspace, path: Path) -> str:
    return path.relative_to(workspace.folder).as_posix() if path.is_relative_to(workspace.folder) else path.name
