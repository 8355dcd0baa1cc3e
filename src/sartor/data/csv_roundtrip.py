"""Generated question–answer pairs that were edited as a table, back to rows with their provenance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PROVENANCE_COLUMNS = frozenset(("question", "answer", "quote", "section", "document", "sha256"))
ESCAPED = re.compile(r"''*[=+\-@\t\r]")


def has_provenance(columns: Iterable[str]) -> bool:
    """Whether a table has the provenance columns that `sartor generate` writes."""
    return set(columns) >= PROVENANCE_COLUMNS


def unescape_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Cells without the apostrophe that kept Excel from reading them as formulas."""
    return {name: cell[1:] if isinstance(cell, str) and ESCAPED.match(cell) else cell for name, cell in row.items()}


def with_provenance(rows: Sequence[dict[str, Any]], cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with section and source added; consecutive turns of one conversation become one row."""
    found: list[dict[str, Any]] = []
    previous: object = None
    for row, cell in zip(rows, cells, strict=True):
        conversation = cell.get("conversation") or None
        if conversation is not None and conversation == previous and "conversations" in row:
            last = found[-1]
            last["conversations"] = [*last["conversations"], *row["conversations"]]
            quotes = last["source"].setdefault("quotes", [last["source"]["quote"]])
            quotes.append(cell["quote"])
            continue
        source = {name: cell.get(name) for name in ("document", "sha256", "start", "stop", "quote")}
        source |= {name: int(str(source[name])) for name in ("start", "stop") if str(source[name]).isdigit()}
        found.append({**row, "section": cell.get("section") or "", "source": source})
        previous = conversation
    return found
