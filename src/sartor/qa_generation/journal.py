"""Paid answers by the hash of what was asked, in a JSONL file that survives a kill; knows no pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from sartor.base.rundir import append_json_line, read_json_lines
from sartor.base.types import Message


class Journal:
    """Answers that were given already; one writer at a time (lock the file around it). `others` are read only."""

    def __init__(self, path: Path, others: Iterable[Path] = ()) -> None:
        self.path = path
        self._answers: dict[str, str] = {}
        for file in (*others, path):
            for line in read_json_lines(file):
                if isinstance(line.get("key"), str) and isinstance(line.get("answer"), str):
                    self._answers[line["key"]] = line["answer"]

    def get(self, key: str) -> str | None:
        """The answer that was paid for, if there is one."""
        return self._answers.get(key)

    def add(self, key: str, answer: str) -> None:
        """Keep an answer on the disk. Raises: RunError on a full disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_json_line(self.path, {"key": key, "answer": answer})
        self._answers[key] = answer


def key_of(model: str, messages: Sequence[Message]) -> str:
    """SHA-256 of the model's name and the whole prompt: a changed chunk, prompt or model asks anew."""
    content = json.dumps([model, [[message.role, message.text] for message in messages]], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
