"""Rows of instruction, input and output (and history), or of prompt, chosen and rejected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sartor.base.types import Demonstration, Document, Example, Feedback, Message, Origin, Preference
from sartor.data.dataset_info import DatasetSpec
from sartor.data.validate import Notes, RowRejected, is_missing, optional_text, parse_tools, required_text, text_of


def parse(row: Mapping[str, Any], spec: DatasetSpec, origin: Origin, stage: str, notes: Notes) -> Example:
    """One row as an example. Raises: Unusable with the code of what is wrong."""
    columns = spec.columns
    prompt_column = columns["prompt"] or "instruction"
    if stage == "pt":
        return Document(required_text(row, prompt_column, "prompt-missing", notes), origin)
    question = "\n".join(
        part for part in (optional_text(row, prompt_column, notes), optional_text(row, columns["query"], notes)) if part
    )
    if not question:
        raise RowRejected("prompt-missing", prompt_column, field=prompt_column)
    system = optional_text(row, columns["system"], notes)
    head = (Message("system", system),) if system else ()
    turns = (*head, *_history(row, columns["history"], notes), Message("user", question))
    tools = parse_tools(row.get(columns["tools"]), columns["tools"], notes) if columns["tools"] else ()
    if spec.ranking:
        chosen = _answer(row, columns["chosen"] or "chosen", notes)
        rejected = _answer(row, columns["rejected"] or "rejected", notes)
        if chosen == rejected:
            raise RowRejected("same-answers", columns["rejected"])
        return Preference(turns, chosen, rejected, origin, tools)
    answer = _answer(row, columns["response"] or "output", notes)
    if columns["kto_tag"]:
        return Feedback((*turns, answer), good_of(row.get(columns["kto_tag"]), columns["kto_tag"]), origin, tools)
    return Demonstration((*turns, answer), origin, tools)


def good_of(value: Any, column: str) -> bool:
    """true/false, also as text and as 0/1. Raises: Unusable for anything else."""
    known = {"true": True, "false": False, "1": True, "0": False}
    key = str(value).strip().lower()
    if key not in known:
        raise RowRejected("kto-tag-invalid", column, field=column, value=str(value)[:40])
    return known[key]


def _answer(row: Mapping[str, Any], column: str, notes: Notes) -> Message:
    return Message("assistant", required_text(row, column, "answer-missing", notes))


def _history(row: Mapping[str, Any], column: str | None, notes: Notes) -> tuple[Message, ...]:
    value = row.get(column) if column else None
    if is_missing(value):
        return ()
    turns: list[Message] = []
    for pair in value if isinstance(value, list) else [None]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowRejected("history-malformed", column, field=column)
        turns += [
            Message("user", text_of(pair[0], str(column), notes)),
            Message("assistant", text_of(pair[1], str(column), notes)),
        ]
    return tuple(turns)


EXAMPLES: tuple[Any, ...] = (
    ({"instruction": "Add.", "input": "1 + 1", "output": 2}, {}, ("user: Add.\n1 + 1", "assistant: 2")),
    (
        {"instruction": "And then?", "output": "Home.", "system": " ", "history": [["Where?", "Out."]]},
        {"columns": {"system": "system", "history": "history"}},
        ("user: Where?", "assistant: Out.", "user: And then?", "assistant: Home."),
    ),
)
"""(row, keys of the registry entry, the turns it becomes)"""
