"""Grounded pairs to a CSV that people edit in Excel, and to a registered dataset; knows no model."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from sartor.base.errors import DataError
from sartor.base.system import atomic_write, move_to_trash
from sartor.data.dataset_info import write_entry
from sartor.data.generate.pairs import Grounded
from sartor.data.importing import NAME

COLUMNS = ("question", "answer", "quote", "section", "document", "sha256", "start", "stop")


def check_name(name: str) -> None:
    """Before anything is paid for. Raises: DataError for a bad name."""
    if not NAME.fullmatch(name) or name.startswith("."):
        raise DataError(f"{name!r} is no name for a dataset.", "--name", "Use letters, digits, _ - . and +.")


def write(pairs: Sequence[Grounded], name: str, dataset_dir: Path) -> tuple[Path, Path]:
    """`<name>.csv` and `<name>.json` with its entry, each atomically; files of that name that differ, edited by hand
    perhaps, go to the trash beside them. Raises: DataError for a bad name.
    """
    check_name(name)
    table, rows = dataset_dir / f"{name}.csv", dataset_dir / f"{name}.json"
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    lines = []
    for pair in pairs:
        place = pair.passage
        writer.writerow([*map(cell, (pair.question, pair.answer, pair.quote, place.section, place.document)),
                         place.sha256, place.start, place.stop])  # fmt: skip
        turns = [{"from": "human", "value": pair.question}, {"from": "gpt", "value": pair.answer}]
        source = {"document": place.document, "sha256": place.sha256, "start": place.start, "stop": place.stop,
                  "quote": pair.quote}  # fmt: skip
        row = {"conversations": turns, "section": place.section, "source": source}
        lines.append(json.dumps(row, ensure_ascii=False))
    for path, text in ((table, "\ufeff" + file.getvalue()), (rows, "[\n" + ",\n".join(lines) + "\n]\n")):
        if path.exists() and path.read_bytes() != text.encode():
            move_to_trash(path)
        atomic_write(path, text)
    entry = {"file_name": rows.name, "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    write_entry(dataset_dir, name, entry)
    return table, rows


def cell(text: str) -> str:
    """A text that Excel shows as it is: one that begins like a formula gets an apostrophe before it."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
