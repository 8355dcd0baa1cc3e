"""Writes grounded pairs as a CSV that people edit in Excel, and as a registered dataset."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError
from sartor.base.files import atomic_write, move_to_trash
from sartor.data.dataset_info import write_entry
from sartor.data.import_file import NAME
from sartor.qa_generation.pairs import GroundedPair

COLUMNS = ("question", "answer", "quote", "section", "document", "sha256", "start", "stop", "conversation", "turn")
RISKY = re.compile(r"'*[=+\-@\t\r]")


def check_name(name: str) -> None:
    """Called before anything is paid for. Raises: DataError for a bad name."""
    if not NAME.fullmatch(name) or name.startswith("."):
        raise DataError("Invalid dataset name {name!r}.", "--name", "Use letters, digits, _ - . and +.", name=name)


def write(pairs: Sequence[GroundedPair], name: str, dataset_dir: Path) -> tuple[Path, Path]:
    """Write `<name>.csv`, `<name>.json` and its registry entry, each atomically.

    A conversation is one row of the dataset, and one row of the table for each turn. Existing files that differ may
    have been edited by hand: they are moved to the trash next to them. Raises: DataError for a bad name.
    """
    check_name(name)
    table, rows = dataset_dir / f"{name}.csv", dataset_dir / f"{name}.json"
    dataset_dir.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row_of(pair), ensure_ascii=False) for pair in pairs]
    for path, text in ((table, "\ufeff" + table_of(pairs)), (rows, "[\n" + ",\n".join(lines) + "\n]\n")):
        if path.exists() and path.read_bytes() != text.encode():
            move_to_trash(path)
        atomic_write(path, text)
    entry = {"file_name": rows.name, "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    write_entry(dataset_dir, name, entry)
    return table, rows


def row_of(pair: GroundedPair) -> dict[str, Any]:
    """A row in ShareGPT format with its provenance; `quotes` has one quote for each turn of a conversation."""
    turns = []
    for turn in pair.turns:
        turns += [{"from": "human", "value": turn.question}, {"from": "gpt", "value": turn.answer}]
    passage = pair.passage
    source: dict[str, Any] = {
        "document": passage.document,
        "sha256": passage.sha256,
        "start": passage.start,
        "stop": passage.stop,
        "quote": pair.quote,
    }
    if pair.more_turns:
        source["quotes"] = [turn.quote for turn in pair.turns]
    return {"conversations": turns, "section": passage.section, "source": source}


def table_of(pairs: Sequence[GroundedPair]) -> str:
    """The text of the CSV; conversations and their turns are numbered if there are any."""
    columns = COLUMNS if any(pair.more_turns for pair in pairs) else COLUMNS[:-2]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(columns)
    for number, pair in enumerate(pairs, 1):
        passage = pair.passage
        for count, turn in enumerate(pair.turns, 1):
            texts = (turn.question, turn.answer, turn.quote, passage.section, passage.document)
            writer.writerow(
                [*map(cell, texts), passage.sha256, passage.start, passage.stop, number, count][: len(columns)]
            )
    return file.getvalue()


def cell(text: str) -> str:
    """A text that Excel does not run: one that begins like a formula gets an apostrophe in front.

    So does one that begins with apostrophes followed by a formula; reading always removes exactly one.
    """
    return "'" + text if RISKY.match(text) else text
