"""Which grammar an answer must follow: JSON of a schema, tool calls as the model's template writes them, or none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Engine
from sartor.inference.grammars import Grammar, GrammarError, Grammars, json_rule
from sartor.inference.requests import Request
from sartor.inference.weights import WeightSet
from sartor.server.schemas import BadRequest, ChatRequest, Limits, NamedTool, ToolIn, batch_requests

MAX_CALLS = 8
"""Tool calls in one answer that is made of nothing else."""
TOOL_CALLS_TOKEN = "[TOOL_CALLS]"


# What all requests are made from.
def guided_requests(
    chat_request: ChatRequest,
    engine: Engine,
    weights: WeightSet,
    default: GenerationSettings,
    limits: Limits,
    grammars: Grammars,
) -> list[Request]:
    """One batch request for each choice, with the grammar that it must follow. Raises: BadRequest naming the field."""
    made = batch_requests(chat_request, engine, weights, default, limits)
    grammar = grammar_of(chat_request, engine, grammars)
    return [replace(request, grammar=grammar) for request in made]


def grammar_of(chat_request: ChatRequest, engine: Engine, grammars: Grammars) -> Grammar | None:
    """The grammar of a request's answers. Raises: BadRequest for a schema that cannot be followed."""
    wanted = chat_request.response_format
    schema = wanted.as_schema() if wanted is not None else None
    calls = _calls(chat_request, engine) if chat_request.wants_calls else None
    forced = chat_request.tool_choice not in (None, "auto", "none")
    try:
        if forced and calls is not None:
            return grammars.lark(f"start: calls\n{calls}")
        if schema is None:
            return None
        if calls is not None:  # an answer is JSON, or tool calls
            return grammars.lark(f"start: answer | calls\nanswer: {json_rule(schema)}\n{calls}")
        return grammars.json(schema)
    except GrammarError as error:
        where = "tools" if forced else "response_format"
        raise BadRequest(" ".join(str(part) for part in (error.what, error.fix) if part), where) from None


def _calls(chat_request: ChatRequest, engine: Engine) -> str:
    """The rules of tool calls in the format of the model's template, each with arguments of its tool's schema."""
    choice = chat_request.tool_choice
    tools = list(chat_request.tools or ())
    if isinstance(choice, NamedTool):
        tools = [tool for tool in tools if tool.function.name == choice.function.name]
    many = MAX_CALLS if not isinstance(choice, NamedTool) and chat_request.parallel_tool_calls is not False else 1
    source = engine.template.source
    if "<tool_call>" in source:
        return _rules(tools, '"<tool_call>\\n"', '"\\n</tool_call>"', '"\\n"', many)
    if TOOL_CALLS_TOKEN in source:
        token = engine.tokenizer.convert_tokens_to_ids(TOOL_CALLS_TOKEN)
        special = token in engine.tokenizer.all_special_ids
        opening = f'<[{token}]> "["' if special else f'"{TOOL_CALLS_TOKEN} ["'
        inner = _rules(tools, "", "", '", "', many).replace("calls:", "listed:", 1)
        return f'calls: {opening} listed "]"\n{inner}'
    name = "parameters" if '"parameters": ' in source else "arguments"  # as Llama 3 writes them
    return _rules(tools, "", "", "", 1, name)


def _rules(
    tools: Sequence[ToolIn], before: str, after: str, between: str, many: int, arguments: str = "arguments"
) -> str:
    """One to `many` calls, each in its frame; `arguments` is the name of their field."""
    repeated = f" ({between} call){{0,{many - 1}}}" if many > 1 else ""
    lines = [
        f"calls: call{repeated}",
        f"call: {before} ({' | '.join(f'tool_{place}' for place in range(len(tools)))}) {after}",
    ]
    for place, tool in enumerate(tools):
        head = json.dumps(f'{{"name": "{tool.function.name}", "{arguments}": ')
        lines.append(f'tool_{place}: {head} arguments_{place} "}}"')
        parameters = {"type": "object", **(tool.function.parameters or {})}
        lines.append(f"arguments_{place}: {json_rule(parameters)}")
    return "\n".join(lines) + "\n"
