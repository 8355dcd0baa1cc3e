"""The chat templates of public models that TRL ships, and a tool with a call of it to render with them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sartor.base.types import Message, ToolCall

FOUND = importlib.util.find_spec("trl")
FOLDER = Path(FOUND.submodule_search_locations[0]) / "chat_templates" if FOUND else Path("none")  # type: ignore[index]
FILES = {file.stem: file for file in sorted(FOLDER.glob("*.jinja")) if not file.stem.endswith("_training")}

CALL = Message("assistant", "", (ToolCall("find", {"title": "Emma"}, "abcdefghi"),))
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds.",
        "parameters": {"type": "object", "properties": {"title": {"type": "string", "description": "Which."}}},
    },
}
