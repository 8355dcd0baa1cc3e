"""The chat templates of public models that TRL ships, and a tool with a call of it to render with them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

from sartor.base.types import Message, ToolCall
from sartor.prompt.template import Template
from support.byte_tokenizers import byte_tokenizer

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

CONTROL = re.compile(r"<\|[^|<>{}' ]+\|>|<｜[^｜]+｜>|<[a-z]+_[a-z_]+>|<[a-z_]+\|>|<\|[a-z_]+>|\[/?[A-Z_]{3,}\]")
ROLES = {"<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|tool|>"}

REFUSED = {"glm4moe": "no control token ends"}
"""It never ends an answer; which token does is declared beside the tokenizer (see test_turn_ends.py)."""
CLOSED = {
    "deepseek_r1_distill": "\n</think>\n\n",
    "deepseekv3": "\n</think>\n\n",
    "nemotron_3_5_lightning": "</think>",
    "nemotron_3_nano": "\n</think>\n",
    "nemotron_3_super": "\n</think>\n",
    "nemotron_3_ultra": "</think>",
}
"""Their prompt opens a reasoning block that their rendering of an answer (without any) does not go on with: how the
models write its end."""


def template_of(name: str) -> tuple[Any, Template]:
    source = FILES[name].read_text(encoding="utf-8")
    tokenizer = byte_tokenizer(tuple(sorted({*CONTROL.findall(source), *ROLES})), source)
    return tokenizer, Template.from_tokenizer(tokenizer)
