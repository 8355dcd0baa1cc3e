"""Datasets for every stage: pairs, judged answers and a novel, with their entries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ENTRIES = {
    "pairs": {
        "file_name": "pairs.json",
        "ranking": True,
        "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"},
    },
    "judged": {
        "file_name": "judged.json",
        "columns": {"prompt": "instruction", "response": "output", "kto_tag": "tag"},
    },
    "novel": {"file_name": "novel.json", "columns": {"prompt": "text"}},
}


def pairs(count: int) -> list[dict[str, Any]]:
    """Sums with an answer and a rejected one."""
    return [
        {"instruction": f"How much is {i} and 1?", "chosen": f"It is {i + 1}.", "rejected": f"No idea {i}."}
        for i in range(count)
    ]


def texts(count: int) -> list[dict[str, Any]]:
    """Chapters of four lengths."""
    return [{"text": f"Chapter {i}. " + "It is a truth universally acknowledged. " * (1 + i % 4)} for i in range(count)]


def write_datasets(data: Path, rows: Mapping[str, Sequence[Any]]) -> None:
    """Write the rows of each dataset, and the registry of all of them."""
    data.mkdir()
    for name, content in rows.items():
        (data / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (data / "dataset_info.json").write_text(json.dumps(ENTRIES), encoding="utf-8")
