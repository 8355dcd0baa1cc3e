"""Finds the Jinja source of a chat template (the model's own, a named one, a file), and writes defaults into it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError, PromptError
from sartor.base.i18n import tr
from sartor.base.open_file import read_regular
from sartor.prompt.named_templates import NamedTemplate, advice, named
from sartor.prompt.tokenizer import Codec, Tokenizer


def template_source(tokenizer: Tokenizer, name: str | None) -> str:
    """The Jinja source of the model's own template, a named one, or a `.jinja` file. Raises: PromptError."""
    if name is None:
        return _own_source(tokenizer)
    return _file_source(Path(name)) if name.endswith(".jinja") else named(name).source


def _own_source(tokenizer: Tokenizer) -> str:
    source = tokenizer.chat_template
    if isinstance(source, Mapping):
        source = source.get("default")
    if not source:
        raise PromptError(
            "The model has no chat template (it is a base model).",
            tokenizer.name_or_path,
            "Choose one whose control tokens it has: {names}.",
            code="no-template",
            names=advice(Codec(tokenizer), special_tokens(tokenizer)),
        )
    return str(source)


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """`eos_token` and its like → their strings."""
    return {key: str(value) for key, value in tokenizer.special_tokens_map.items() if not _is_list(value)}


def _file_source(path: Path) -> str:
    try:
        return read_regular(path).decode("utf-8-sig")
    except DataError as error:
        raise PromptError("Could not read the template file: {reason}.", path, reason=error.what) from None
    except UnicodeDecodeError as error:
        raise PromptError("Could not read the template file: {reason}.", path, reason=str(error)) from None


def require_tokens(template: NamedTemplate, codec: Codec, special: Mapping[str, str], *, has_own: bool) -> None:
    if missing := template.missing(codec, special):
        names = advice(codec, special, without=template.name)
        raise PromptError(
            "The tokenizer lacks control tokens of the template {name}: {tokens}.",
            "template",
            tr("Remove `template` to use the model's own, or choose one whose tokens it has: {names}.", names=names)
            if has_own
            else tr("Choose one whose tokens it has: {names}.", names=names),
            name=template.name,
            tokens=" ".join(missing),
        )


_THINKING = re.compile(r"""(?<![\w.'"])thinking(?![\w'"])""")
"""The variable that DeepSeek V3.1 and Granite read instead of `enable_thinking`."""


def preamble(source: str, default_system: str | None, enable_thinking: bool | None) -> str:
    """Jinja code that sets the defaults, so that other programs with the saved template render the same."""
    written = ""
    if enable_thinking is not None:
        value = "true" if enable_thinking else "false"
        for name in ("enable_thinking", *(("thinking",) if _THINKING.search(source) else ())):
            written += f"{{%- set {name} = {name} if {name} is defined else {value} %}}"
    if default_system is not None:
        system = json.dumps({"role": "system", "content": default_system}, ensure_ascii=False)
        written += (
            "{%- set messages = messages if messages and messages[0]['role'] == 'system' "
            f"else [{system}] + messages %}}"
        )
    # Jinja drops one line break after a block; add it back.
    return written + ("\n" if written and source.startswith("\n") else "")


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))
