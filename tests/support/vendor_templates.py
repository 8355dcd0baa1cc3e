"""Chat templates with the structure of vendors' own, written for these tests: how each writes tools, calls and results.

Only what matters for tool calls is kept: which ids, names and forms of arguments a template reads, and what it rejects.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.byte_tokenizers import byte_tokenizer

MISTRAL = """{{ bos_token }}{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools and loop.last or tools and messages[loop.index0 + 1:] | selectattr('role', 'equalto', 'user') | list == [] %}
{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}{{- '[INST] ' + m.content + '[/INST]' }}
{%- elif m.tool_calls is defined %}{{- '[TOOL_CALLS] [' }}
{%- for call in m.tool_calls %}
{%- if call.id is not defined or call.id | length != 9 %}{{ raise_exception('Ids have nine characters.') }}{% endif %}
{{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' }}{{- ', ' if not loop.last else ']' + eos_token }}
{%- endfor %}
{%- elif m.role == 'assistant' %}{{- ' ' + m.content + eos_token }}
{%- elif m.role == 'tool' %}
{%- if m.tool_call_id is not defined or m.tool_call_id | length != 9 %}{{ raise_exception('Ids!') }}{% endif %}
{{- '[TOOL_RESULTS] {"content": ' + (m.content | tojson) + ', "call_id": "' + m.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- endif %}{%- endfor %}"""  # noqa: E501
"""Mistral 7B v0.3 and Nemo: nine characters, tools before the last question, no generation prompt."""

MINISTRAL = """{{ bos_token }}{%- if tools %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '[INST]' + m.content + '[/INST]' }}
{%- elif m.role == 'assistant' %}
{%- if not m.content and not m.tool_calls %}{{ raise_exception('Assistant messages say or call something.') }}{% endif %}
{{- m.content or '' }}
{%- for call in m.tool_calls or [] %}{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' }}
{{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}{%- endfor %}
{{- eos_token }}
{%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}
{%- endif %}{%- endfor %}"""  # noqa: E501
"""Ministral 3 and Mistral Small 3.2: the name, then `[ARGS]`; a turn without text and calls is rejected."""

KIMI = """{%- if tools %}<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>{% endif %}
{%- for m in messages %}
{%- set who = m.get('name') or m.role %}
{%- if m.role == 'user' %}<|im_user|>{{ who }}<|im_middle|>{% elif m.role == 'assistant' %}<|im_assistant|>{{ who }}<|im_middle|>
{%- else %}<|im_system|>{{ who }}<|im_middle|>{% endif %}
{%- if m.role == 'tool' %}{{ '## Return of ' + m.tool_call_id + '\n' }}{% endif %}{{ m.content }}
{%- if m.tool_calls %}<|tool_calls_section_begin|>{% for call in m.tool_calls %}<|tool_call_begin|>{{ call['id'] }}
{{- '<|tool_call_argument_begin|>' }}{{ call.function.arguments | tojson }}<|tool_call_end|>{% endfor %}
{{- '<|tool_calls_section_end|>' }}{% endif %}<|im_end|>{% endfor %}
{%- if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}"""  # noqa: E501
"""Kimi K2: the name of a call is only in its id."""

MINIMAX = """{%- set last = namespace(call=none) %}
{{- ']~!b[]~b]system\nYou help.' }}{% if tools %}{{ '\n<tools>\n' }}{% for t in tools %}{{ '<tool>' + (t.function | tojson) + '</tool>\n' }}
{%- endfor %}</tools>{% endif %}{{ '[e~[\n' }}
{%- for m in messages %}
{%- if m.role == 'assistant' %}{{- ']~b]ai\n' + m.content }}
{%- if m.tool_calls %}{{- '\n<minimax:tool_call>\n' }}{% for call in m.tool_calls %}{{ '<invoke name="' + call.function.name + '">\n' }}
{%- for key, value in call.function.arguments.items() %}
{{- '<parameter name="' + key + '">' + (value if value is string else value | tojson) + '</parameter>\n' }}{% endfor %}</invoke>
{{- '\n' }}{% endfor %}{{ '</minimax:tool_call>' }}{% set last.call = m.tool_calls[-1].function.name %}
{%- else %}{% set last.call = none %}{% endif %}{{- '[e~[\n' }}
{%- elif m.role == 'tool' %}
{%- if last.call is none %}{{ raise_exception('A result without a call!') }}{% endif %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{- ']~b]tool' }}{% endif %}{{- '\n<response>' + m.content + '</response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '[e~[\n' }}{% endif %}
{%- else %}{{- ']~b]' + m.role + '\n' + m.content + '[e~[\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{- ']~b]ai\n' }}{% endif %}"""  # noqa: E501
"""MiniMax M2: a result without a call before it is rejected."""

DEEPSEEK = """{{ bos_token }}{% if tools %}{{ '## Tools\n' + (tools | tojson) }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<｜User｜>' + m.content }}
{%- elif m.role == 'assistant' and m.content is none %}{{ '<｜Assistant｜><｜tool▁calls▁begin｜>' if messages[loop.index0 - 1].role != 'tool' else '<｜tool▁calls▁begin｜>' }}
{%- for call in m.tool_calls %}{{ '<｜tool▁call▁begin｜>' + call.type + '<｜tool▁sep｜>' + call.function.name + '\n```json\n' + call.function.arguments + '\n```<｜tool▁call▁end｜>' }}
{%- endfor %}{{ '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}
{%- elif m.role == 'assistant' %}{{ ('<｜Assistant｜>' if messages[loop.index0 - 1].role != 'tool' else '') + m.content + '<｜end▁of▁sentence｜>' }}
{%- elif m.role == 'tool' %}{{ '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}
{%- endif %}{% endfor %}{% if add_generation_prompt and messages[-1].role != 'tool' %}{{ '<｜Assistant｜>' }}{% endif %}"""  # noqa: E501
"""DeepSeek V3: arguments are JSON text, and a turn with calls has no content at all."""

COMMAND = """{{ bos_token }}{% set count = namespace(value=0) %}{% if tools %}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{ tools | tojson }}<|END_OF_TURN_TOKEN|>{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{ m.content }}<|END_OF_TURN_TOKEN|>
{%- elif m.role == 'assistant' %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% if m.tool_calls %}<|START_ACTION|>{{ '[\n' }}
{%- for call in m.tool_calls %}{{ '    {"tool_call_id": "' ~ count.value ~ '", "tool_name": "' + call.function.name + '", "parameters": ' + (call.function.arguments | tojson) + '}' + (',\n' if not loop.last else '\n') }}
{%- set count.value = count.value + 1 %}{% endfor %}]<|END_ACTION|><|END_OF_TURN_TOKEN|>
{%- else %}<|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>{% endif %}
{%- elif m.role == 'tool' %}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>
{%- set seen = namespace(n=0) %}{% for other in messages %}{% for call in other.tool_calls or [] %}
{%- if call.id == m.tool_call_id %}{{ '[{"tool_call_id": "' ~ seen.n ~ '", "results": ' + (m.content | tojson) + '}]' }}{% endif %}
{%- set seen.n = seen.n + 1 %}{% endfor %}{% endfor %}<|END_TOOL_RESULT|><|END_OF_TURN_TOKEN|>
{%- endif %}{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"""  # noqa: E501
"""Command R7B: results are matched with their calls by ids that are not written themselves."""

FUNCTIONARY = """{% if tools %}<|start_header_id|>system<|end_header_id|>{{ '\n\n' + (tools | tojson) }}<|eot_id|>{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' or m.role == 'system' %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ '\n\n' + m.content }}<|eot_id|>
{%- elif m.role == 'tool' %}<|start_header_id|>tool<|end_header_id|>{{ '\n\nname=' + m.name + '\n' + m.content }}<|eot_id|>
{%- else %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ '\n\n' }}
{%- if m.content %}{{ '>>>all\n' + m.content }}{% endif %}
{%- for call in m.tool_calls or [] %}{{ '>>>' + call.function.name + '\n' + (call.function.arguments | tojson) }}{% endfor %}<|eot_id|>{% endif %}
{%- endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{{ '\n\n' }}{% endif %}"""  # noqa: E501
"""Functionary v3.2: a result needs the name of its tool."""

GLM = """[gMASK]<sop>{% if tools %}<|system|>{{ '\n<tools>\n' }}{% for t in tools %}{{ (t | tojson) + '\n' }}{% endfor %}</tools>{% endif %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}<|assistant|>{{ '\n<think>' + (m.reasoning_content or '') + '</think>' }}{% if m.content %}{{ '\n' + m.content }}{% endif %}
{%- for call in m.tool_calls or [] %}{{ '\n<tool_call>' + call.function.name + '\n' }}
{%- for key, value in call.function.arguments.items() %}<arg_key>{{ key }}</arg_key>{{ '\n<arg_value>' }}
{{- value if value is string else value | tojson(ensure_ascii=False) }}</arg_value>{{ '\n' }}{% endfor %}</tool_call>{% endfor %}
{%- elif m.role == 'tool' %}{% if messages[loop.index0 - 1].role != 'tool' %}<|observation|>{% endif %}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{%- else %}<|{{ m.role }}|>{{ '\n' + m.content }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""  # noqa: E501
"""GLM 4.5: nothing ends a turn but the beginning of the next."""

HUNYUAN = """{{ bos_token }}{% for m in messages %}
{%- if m.role == 'assistant' %}<｜hy_Assistant｜>{{ m.content }}
{%- if not loop.last %}<｜hy_place▁holder▁no▁2｜>{% endif %}
{%- else %}<｜hy_User｜>{{ m.content }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<｜hy_Assistant｜>{% endif %}"""
"""Hunyuan dense: every answer but the last is ended."""

OPEN = """{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
"""No answer is ended, and the token that ends generation is not written anywhere."""

VENDORS = {
    "mistral": MISTRAL,
    "ministral": MINISTRAL,
    "kimi": KIMI,
    "minimax": MINIMAX,
    "deepseek": DEEPSEEK,
    "command": COMMAND,
    "functionary": FUNCTIONARY,
    "glm": GLM,
}
"""Name → source."""

CONTROL = re.compile(
    r"<\|[^|<>{}' ]+\|>|<｜[^｜]+｜>|<[a-z]+_[a-z_]+>|<[a-z_]+\|>|<\|[a-z_]+>"
    r"|\[/?[A-Z_]{3,}\]|\]~!?b[\[\]]|\[e~\[|<seed:[a-z_/]+>"
)
"""What looks like a control token in a template."""
ROLES = {"<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|tool|>"}
"""Control tokens that templates put together from a role."""


GLM_ENDS = ("<|endoftext|>", "<|user|>", "<|observation|>")


def vendor_tokenizer(source: str, ends: Sequence[str] = (), folder: Path | None = None) -> Any:
    """A byte-level tokenizer with the control tokens that a template seems to need.

    With a folder it was loaded from there, and `ends` are declared in the folder's generation_config.json.
    """
    tokenizer = byte_tokenizer(tuple(sorted({*CONTROL.findall(source), *ROLES, *ends})), source)
    if folder is None:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)  # byte_tokenizer keeps what it made
    ids = tokenizer.convert_tokens_to_ids(list(ends))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}), encoding="utf-8")
    tokenizer.name_or_path = str(folder)
    return tokenizer
