"""Answers by the hash of their request, in a JSONL file that survives a kill, so that nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from sartor.base.rundir import append_json_line, read_json_lines
from sartor.base.types import Message


class Journal:
    """Answers already received. One writer at a time (lock the file around it); `others` are only read."""

    def __init__(self, path: Path, others: Iterable[Path] = ()) -> None:
        self.path = path
        self._answers: dict[str, str] = {}
        for file in (*others, path):
            for line in read_json_lines(file):
                if isinstance(line.get("key"), str) and isinstance(line.get("answer"), str):
                    self._answers[line["key"]] = line["answer"]

    @classmethod
    def open(cls, dataset_dir: Path, name: str) -> Journal:
        """The journal of the dataset `name`, which also reads those of the other datasets in the folder."""
        path = dataset_dir / f"{name}.generated.jsonl"
        return cls(path, (other for other in sorted(dataset_dir.glob("*.generated.jsonl")) if other != path))

    def get(self, key: str) -> str | None:
        """The answer to a request, if there is one already."""
        return self._answers.get(key)

    def add(self, key: str, answer: str) -> None:
        """Write an answer to the disk. Raises: RunError on a full disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_json_line(self.path, {"key": key, "answer": answer})
        self._answers[key] = answer


def key_of(model: str, messages: Sequence[Message]) -> str:
    """SHA-256 of the model's name and the whole prompt: a changed passage, prompt or model is a new request."""
    content = json.dumps([model, [[message.role, message.text] for message in messages]], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
