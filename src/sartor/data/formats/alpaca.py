"""Rows of instruction, input and output (and history), or of prompt, chosen and rejected."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from sartor.base.reasons import Reason
from sartor.base.types import Demonstration, Document, Example, Feedback, Message, Origin, Preference
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.formats import Answered, WritableFormat, optional_columns
from sartor.data.validate import (
    Notes,
    RowRejected,
    is_missing,
    optional_text,
    parse_kto_tag,
    parse_tools,
    required_text,
    text_of,
)


class AlpacaFormat(WritableFormat):
    """`{"instruction": …, "input": …, "output": …}`."""

    name = "alpaca"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "history-malformed": Reason(
            "{field} is not a list of [question, answer] pairs.",
            'Write [["…", "…"], …].',
        ),
    }

    def parse(self, row: Mapping[str, Any], spec: DatasetSpec, origin: Origin, stage: str, notes: Notes) -> Example:
        columns = spec.columns
        prompt_column = columns["prompt"] or "instruction"
        if stage == "pt":
            return Document(required_text(row, prompt_column, "prompt-missing", notes), origin)
        question = "\n".join(
            part
            for part in (optional_text(row, prompt_column, notes), optional_text(row, columns["query"], notes))
            if part
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
            return Feedback(
                (*turns, answer), parse_kto_tag(row.get(columns["kto_tag"]), columns["kto_tag"]), origin, tools
            )
        return Demonstration((*turns, answer), origin, tools)

    def fields(self, spec: DatasetSpec, stage: str) -> set[str]:
        if stage == "pt":
            return {"prompt"}
        answers = {"chosen", "rejected"} if spec.ranking else {"response"}
        return {"prompt", "query"} | answers | ({"kto_tag"} if spec.columns["kto_tag"] else set())

    def recognize(self, columns: Collection[str]) -> Mapping[str, Any] | None:
        known = set(columns)
        preference = {"chosen", "rejected"} <= known
        if (
            not {"instruction"} | (set() if preference else {"output"}) <= known
            or {"conversations", "messages"} & known
        ):
            return None
        optional = optional_columns(columns, "system", "tools", "history")
        if preference:
            return {"formatting": self.name, "ranking": True, "columns": self.written_columns(True) | optional}
        if tag := next((name for name in ("kto_tag", "label") if name in known), None):
            optional["kto_tag"] = tag
        return {"formatting": self.name} | ({"columns": self.written_columns() | optional} if optional else {})

    def to_row(self, example: Answered) -> dict[str, Any]:
        messages = example.prompt if isinstance(example, Preference) else example.messages
        texts = {message.role: message.text for message in messages}
        row: dict[str, Any] = {"instruction": texts["user"], "input": ""}
        if isinstance(example, Preference):
            row |= {"chosen": example.chosen.text, "rejected": example.rejected.text}
        else:
            row["output"] = texts["assistant"]
        row |= {"kto_tag": example.good} if isinstance(example, Feedback) else {}
        row |= {"system": texts["system"]} if "system" in texts else {}
        if example.tools:
            row["tools"] = json.dumps([dict(tool) for tool in example.tools], ensure_ascii=False)
        return row

    def written_columns(self, preference: bool = False) -> dict[str, str]:
        answers = {"chosen": "chosen", "rejected": "rejected"} if preference else {"response": "output"}
        return {"prompt": "instruction", "query": "input", **answers}


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


PLUGIN = AlpacaFormat()
EXAMPLES: tuple[Any, ...] = (
    ({"instruction": "Add.", "input": "1 + 1", "output": 2}, {}, ("user: Add.\n1 + 1", "assistant: 2")),
    (
        {"instruction": "And then?", "output": "Home.", "system": " ", "history": [["Where?", "Out."]]},
        {"columns": {"system": "system", "history": "history"}},
        ("user: Where?", "assistant: Out.", "user: And then?", "assistant: Home."),
    ),
)
"""(row, keys of the registry entry, the turns it becomes)."""
