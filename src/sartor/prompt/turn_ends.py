"""What ends an answer where the template leaves it open: the tokens that the model's own files declare.

GLM's template writes no end after an answer: the model stops when it would begin the next turn, `<|user|>`, or
`<|observation|>` after a tool call. Hunyuan's writes one after every answer but the last. Such ends are declared in
`generation_config.json`, and without them a model would never learn to stop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError
from sartor.base.open_file import read_regular
from sartor.base.types import Message, Tool, ToolCall
from sartor.prompt.tokenizer import Codec, Tokenizer

FILES = ("generation_config.json", "config.json")
QUESTION, ANSWER = Message("user", "Is it true?"), Message("assistant", "It is.")
CALL, RESULT = Message("assistant", "", (ToolCall("look", {}, "call00000"),)), Message("tool", "It is.", (), None)
LOOK: Tool = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {}}}


@dataclass(frozen=True, slots=True)
class AddedEnds:
    """The control tokens added after a last answer, and after a last tool call; empty where nothing is added."""

    answer: str = ""
    call: str = ""

    def of(self, messages: Sequence[Message]) -> str:
        """What is added to a rendering of these messages for training."""
        if not messages or messages[-1].role != "assistant":
            return ""
        return self.call if messages[-1].tool_calls else self.answer


@dataclass(frozen=True, slots=True)
class MessageEnd:
    """A token that ends an answer only behind a header: gpt-oss ends every message of a turn in `<|end|>`."""

    end: str
    header: str


def declared_ends(tokenizer: Tokenizer, codec: Codec) -> tuple[str, ...]:
    """The control tokens that end generation by the files beside the tokenizer: `eos_token_id`, one or several."""
    for name in FILES:
        file = _beside(tokenizer.name_or_path, name)
        if file is None:
            continue
        try:
            ids = json.loads(read_regular(file)).get("eos_token_id")
        except (DataError, ValueError, AttributeError, RecursionError):
            continue
        found = [codec.control[id] for id in (ids if isinstance(ids, list) else [ids]) if _is_control(id, codec)]
        if found:
            return tuple(dict.fromkeys(found))
    return ()


def find_added_ends(
    declared: tuple[str, ...],
    eos: str | None,
    codec: Codec,
    try_render: Callable[[Sequence[Message], Sequence[Tool]], str | None],
) -> AddedEnds:
    """The ends for a template that writes none after a last answer.

    What the template writes after an earlier answer comes first if it is declared: that is what the model has learned
    to stop with. Then the tokenizer's own end, then the first declared one.
    """
    known = (*declared, *([eos] if eos and eos not in declared else []))

    def following(before: Sequence[Message], after: Message, tools: Sequence[Tool] = ()) -> str | None:
        short, long = try_render(before, tools), try_render([*before, after], tools)
        if short is None or long is None or not long.startswith(short):
            return None
        rest = long[len(short) :]
        first = next(iter(codec.scan(rest)), None)
        return first.content if first and first.content in known and not rest[: first.start].strip() else None

    default = next((end for end in (eos, *declared) if end in declared), None)
    answer = following([QUESTION, ANSWER], QUESTION) or default or ""
    return AddedEnds(answer, following([QUESTION, CALL], RESULT, [LOOK]) or answer)


def _beside(name_or_path: str, file: str) -> Path | None:
    """A file of the model that a tokenizer was loaded from, if it is on this machine."""
    if not name_or_path:
        return None
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found: Any = try_to_load_from_cache(name_or_path, file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _is_control(id: Any, codec: Codec) -> bool:
    return isinstance(id, int) and not isinstance(id, bool) and id in codec.control
