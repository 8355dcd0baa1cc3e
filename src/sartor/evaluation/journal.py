"""Journal of finished answers, keyed by a hash of their inputs, so that a killed prediction resumes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sartor.base.errors import ConfigError
from sartor.base.rundir import append_json_line, read_json_lines
from sartor.inference.engine import Answer

NAME = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` (from 1) of `count` parts of the rows: every `count`-th row."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`i/n`. Raises: ConfigError."""
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError("Invalid shard {text!r}.", "--shard", "Pass i/n with 1 ≤ i ≤ n, as in 2/4.", text=text)
        return cls(int(found[1]), int(found[2]))

    def rows(self, total: int) -> range:
        return range(self.number - 1, total, self.count)


def journal_name(shard: Shard | None) -> str:
    return f"journal-{shard.number}-of-{shard.count}.jsonl" if shard else NAME


class Journal:
    """A file of finished answers; `known` holds those of every journal in the folder."""

    def __init__(self, folder: Path, keys: Sequence[str], shard: Shard | None = None) -> None:
        """`keys` are the rows' hashes in order; entries of other rows or settings are ignored."""
        self.folder, self.keys = folder, keys
        self.path = folder / journal_name(shard)
        places = {key: place for place, key in enumerate(keys)}
        self.known: dict[int, Answer] = {}
        for file in sorted(folder.glob("journal*.jsonl")):
            for line in read_json_lines(file):
                if (place := places.get(str(line.get("key")))) is not None:
                    self.known[place] = _answer(line["answer"])

    def add(self, place: int, answer: Answer) -> None:
        """Append a row's answer. Raises: RunError on a full disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_json_line(self.path, {"key": self.keys[place], "answer": asdict(answer)})
        self.known[place] = answer

    def remove(self) -> None:
        """Delete every journal in the folder, after the predictions are written."""
        for file in self.folder.glob("journal*.jsonl"):
            file.unlink(missing_ok=True)


def row_key(decided_by: Mapping[str, Any], place: int, id: str, prompt_ids: bytes) -> str:
    """SHA-256 over everything an answer depends on: weights, settings, the row's number (random draws), its tokens."""
    head = json.dumps({**decided_by, "place": place, "id": id}, sort_keys=True, default=str)
    return hashlib.sha256(head.encode("utf-8") + b"\0" + prompt_ids).hexdigest()


def _answer(value: Mapping[str, Any]) -> Answer:
    return Answer(**{**value, "ids": tuple(value["ids"])})
