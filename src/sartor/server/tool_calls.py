"""Parses tool calls in forms that a model has not from its template, but that open models often use all the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_TAGGED = re.compile(r"<tool_call>\s*(\{.*?\})\s*(?:</tool_call>|$)", re.DOTALL)
_BARE_LIST = re.compile(r"\s*(\[\s*\{.*\}\s*\])\s*", re.DOTALL)
_HARMONY = re.compile(r"(?:<\|channel\|>)?\s*(?:commentary)?\s*to=functions\.([\w.-]+)[^{]*(\{.*\})", re.DOTALL)
_LISTED = re.compile(r"\[TOOL_CALLS\]\s*(\[.*\])", re.DOTALL)


def read_calls(text: str, known: frozenset[str]) -> tuple[str, list[tuple[str, str]]]:
    """(the text without calls, each call's name and arguments as JSON text). Only calls of known tools are calls.

    `<tool_call>{…}</tool_call>` (Qwen, Hermes), `[TOOL_CALLS][{…}]` (Mistral, whose marker is a control token and no
    longer there), a bare object (Llama 3), `commentary to=functions.NAME json{…}` (gpt-oss, without its markers).
    """
    found = [_call(body, known) for body in _TAGGED.findall(text)]
    if found and all(found):
        return _TAGGED.sub("", text).strip(), [call for call in found if call]
    if (listed := _LISTED.search(text) or _BARE_LIST.fullmatch(text)) and isinstance(values := _json(listed[1]), list):
        found = [_call_of(value, known) for value in values]
        if found and all(found):
            return text[: listed.start()].strip(), [call for call in found if call]
    if call := _call(text.strip(), known):
        return "", [call]
    if (said := _HARMONY.search(text)) and (call := _call_of({"name": said[1], "arguments": _json(said[2])}, known)):
        return text[: said.start()].strip(), [call]
    return text, []


def _call(body: str, known: frozenset[str]) -> tuple[str, str] | None:
    return _call_of(_json(body), known)


def _call_of(value: Any, known: frozenset[str]) -> tuple[str, str] | None:
    if not isinstance(value, Mapping):
        return None
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters"))
    if name not in known or not isinstance(arguments, Mapping):
        return None
    return str(name), json.dumps(arguments, ensure_ascii=False)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
