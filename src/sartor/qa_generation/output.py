"""Grounded pairs to a CSV that people edit in Excel, and to a registered dataset; knows no model."""

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
    """Before anything is paid for. Raises: DataError for a bad name."""
    if not NAME.fullmatch(name) or name.startswith("."):
        raise DataError(f"{name!r} is no name for a dataset.", "--name", "Use letters, digits, _ - . and +.")


def write(pairs: Sequence[GroundedPair], name: str, dataset_dir: Path) -> tuple[Path, Path]:
    """`<name>.csv` and `<name>.json` with its entry, each atomically; files of that name that differ, edited by hand
    perhaps, go to the trash beside them. Raises: DataError for a bad name.

    A conversation has a row of the table for each turn, and one row of the dataset.
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
    """A row in sharegpt's format with its provenance; `quotes` has one quote for each turn of a conversation."""
    turns = []
    for turn in pair.turns:
        turns += [{"from": "human", "value": turn.question}, {"from": "gpt", "value": turn.answer}]
    place = pair.passage
    source: dict[str, Any] = {
        "document": place.document,
        "sha256": place.sha256,
        "start": place.start,
        "stop": place.stop,
        "quote": pair.quote,
    }
    if pair.more_turns:
        source["quotes"] = [turn.quote for turn in pair.turns]
    return {"conversations": turns, "section": place.section, "source": source}


def table_of(pairs: Sequence[GroundedPair]) -> str:
    """The CSV's text; conversations and their turns are numbered where there are any."""
    columns = COLUMNS if any(pair.more_turns for pair in pairs) else COLUMNS[:-2]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(columns)
    for number, pair in enumerate(pairs, 1):
        place = pair.passage
        for count, turn in enumerate(pair.turns, 1):
            texts = (turn.question, turn.answer, turn.quote, place.section, place.document)
            writer.writerow([*map(cell, texts), place.sha256, place.start, place.stop, number, count][: len(columns)])
    return file.getvalue()


def cell(text: str) -> str:
    """A text that Excel shows as it is: one that begins like a formula gets an apostrophe before it.

    So does one that begins with apostrophes and then like a formula, so that reading takes back exactly one.
    """
    return "'" + text if RISKY.match(text) else text
