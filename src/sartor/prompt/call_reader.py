"""Reads tool calls back from what a model wrote, in the form in which its template writes them.

Nothing is listed by model: a frame is found from the template itself (`call_frame`), so a model answers in the form
that it was trained on. White space may differ from the template's; names must be those of known tools.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sartor.base.types import Tool, ToolCall
from sartor.prompt.call_frame import IDS, KEYS, NAME, CallFrame, PairTags, RenderCalls, find_frame, samples

MAX_CALLS = 64
"""Calls that are read from one answer."""
_LITERALS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class CallReader:
    """Reads calls in one frame."""

    def __init__(self, frame: CallFrame) -> None:
        self.frame = frame
        self._mid, self._tail = _tolerant(frame.mid), _tolerant(frame.tail)
        self._lead = _tolerant(frame.lead)
        self._gap = None if frame.gap is None else _tolerant(frame.gap)
        self._pairs = _pair_pattern(frame.pairs) if frame.pairs else None

    def read(self, text: str, tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
        """The text without calls, and the calls of known tools, in order. A text without any stays as it is."""
        schemas = {function["name"]: _properties(function) for tool in tools if (function := _function(tool))}
        if not schemas:
            return text, []
        names = "|".join(re.escape(name) for name in sorted(schemas, key=len, reverse=True))
        named = rf"(?P<name>{names})(?![\w.-]){self._mid}"
        first = re.compile(self._lead + named)
        following = None if self._gap is None else re.compile(self._gap + named)
        kept, position = "", 0
        calls: list[ToolCall] = []
        while len(calls) < MAX_CALLS and (found := first.search(text, position)):
            before, start = text[position : found.start()], len(calls)
            position = found.start()
            while found and (read := self._arguments(text, found.end(), schemas[found["name"]])):
                calls.append(ToolCall(found["name"], read[0]))
                position = read[1]
                found = following.match(text, position) if following else None
            if len(calls) == start:
                return text, []
            kept += before
            ending = re.compile(self._tail).match(text, position)
            position = ending.end() if ending else position
        return (kept + text[position:]).strip() if calls else text, calls

    def _arguments(self, text: str, start: int, types: Mapping[str, Any]) -> tuple[dict[str, Any], int] | None:
        """The arguments that begin there, and where they end."""
        try:
            if self._pairs is not None:
                return self._read_pairs(text, start, types)
            if self.frame.form == "python":
                stop = _closing(text, start, "(", ")", ("'", '"'))
                return _keywords(text[start:stop]), stop
            if self.frame.form == "quoted":
                stop = _closing(text, start, "{", "}", (self.frame.quote,))
                return _object(json.loads(_requoted(text[start:stop], self.frame.quote))), stop
            value, stop = json.JSONDecoder().raw_decode(text, start)
            return _object(json.loads(value) if isinstance(value, str) else value), stop
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None

    def _read_pairs(self, text: str, start: int, types: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        arguments: dict[str, Any] = {}
        assert self._pairs is not None
        while found := self._pairs.match(text, start):
            key, value = found["key"], found["value"]
            if value.startswith("<![CDATA[") and value.endswith("]]>"):
                value = value[9:-3]
            is_text = bool(found.groupdict().get("typed")) or "string" in _types_of(types.get(key))
            arguments[key] = value if is_text else _value(value)
            start = found.end()
        return arguments, start


def find_reader(render: RenderCalls, ends: Sequence[str], tools: Sequence[Tool]) -> CallReader | None:
    """The reader for a template's calls, if it reads back what the template writes. `tools` are what samples call."""
    frame = find_frame(render, ends)
    if frame is None:
        return None
    reader = CallReader(frame)
    for message, turn in samples(render, ends):
        read = [(call.name, dict(call.arguments)) for call in reader.read(turn, tools)[1]]
        if read != [(call.name, dict(call.arguments)) for call in message.tool_calls]:
            return None
    return reader


def _tolerant(frame: str) -> str:
    """A pattern for a piece of a frame: other white space, other numbers, and any id."""
    pattern = ""
    for part in re.findall(rf"{'|'.join([*IDS, NAME, KEYS[0]])}|\s+|\d+|[{{}}\[\],:]|.", frame, re.DOTALL):
        if part in IDS:
            pattern += r"[\w.:-]+"
        elif part in (NAME, KEYS[0]):
            pattern += "(?P=name)" if part == NAME else "(?P=key)"
        elif part.isspace():
            pattern += r"\s*"
        elif part.isdigit():
            pattern += r"\d+"
        else:
            pattern += rf"\s*{re.escape(part)}\s*" if part in "{}[],:" else re.escape(part)
    return re.sub(r"(\\s\*)+", r"\\s*", pattern)


def _pair_pattern(tags: PairTags) -> re.Pattern[str]:
    """White space next to a value is part of the frame only as the template writes it."""
    plain = _edge(tags.between, last=True)
    between = plain if tags.typed is None else f"(?:(?P<typed>{_edge(tags.typed, last=True)})|{plain})"
    return re.compile(
        rf"{_tolerant(tags.before)}(?P<key>[^<>\n\"]+?){between}(?P<value>.*?){_edge(tags.after, last=False)}",
        re.DOTALL,
    )


def _edge(frame: str, *, last: bool) -> str:
    inner = frame.rstrip() if last else frame.lstrip()
    space = frame[len(inner) :] if last else frame[: len(frame) - len(inner)]
    exact = f"(?:{re.escape(space)})?" if space else ""
    return _tolerant(inner) + exact if last else exact + _tolerant(inner)


def _function(tool: Tool) -> Mapping[str, Any]:
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) and isinstance(function.get("name"), str) else {}


def _properties(function: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = function.get("parameters")
    found = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _types_of(schema: Any) -> list[str]:
    declared = schema.get("type") if isinstance(schema, Mapping) else None
    return [declared] if isinstance(declared, str) else [t for t in declared or () if isinstance(t, str)]


def _value(text: str) -> Any:
    """A value that is no text by its schema: JSON, or as Python writes it; else the text."""
    if text.strip() in _LITERALS:
        return _LITERALS[text.strip()]
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return text


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _closing(text: str, start: int, opening: str, closing: str, quotes: Iterable[str]) -> int:
    """Behind the bracket that closes the one at `start`, outside of quotes. Raises: ValueError if there is none."""
    if not text.startswith(opening, start):
        raise ValueError
    parts = re.compile("|".join([r"\\.", *map(re.escape, [*quotes, opening, closing])]), re.DOTALL)
    depth, inside = 0, ""
    for found in parts.finditer(text, start):
        part = found[0]
        if inside or part in quotes:
            inside = "" if part == inside else inside or part
        elif part in (opening, closing):
            depth += 1 if part == opening else -1
            if depth == 0:
                return found.end()
    raise ValueError


def _keywords(text: str) -> dict[str, Any]:
    """`(a='x', b=[1, true])` as a dict; names that JSON has for values count. Raises: ValueError, SyntaxError."""
    lines = re.sub(r"'[^']*'|\"[^\"]*\"", lambda found: found[0].replace("\n", "\\n"), text)
    call = ast.parse(f"f{lines}", mode="eval").body
    if not isinstance(call, ast.Call) or call.args:
        raise ValueError

    class Names(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return ast.Constant(_LITERALS[node.id]) if node.id in _LITERALS else node

    return {str(pair.arg): ast.literal_eval(Names().visit(pair.value)) for pair in call.keywords}


def _requoted(text: str, quote: str) -> str:
    """JSON from an object with bare keys whose texts stand between `quote`s."""
    parts = text.split(quote)
    bare = [re.sub(r"([{,]\s*)([\w.$-]+)(\s*:)", r'\1"\2"\3', part) for part in parts[::2]]
    texts = [json.dumps(part, ensure_ascii=False) for part in parts[1::2]]
    return "".join(a + b for a, b in zip(bare, [*texts, ""]))
