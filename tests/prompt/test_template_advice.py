"""Advice about templates is never circular: every template that a message names works with that tokenizer."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sartor.base.errors import PromptError
from sartor.base.types import Message
from sartor.prompt.named_templates import named, template_names
from sartor.prompt.template import Template
from support.byte_tokenizers import byte_tokenizer

TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {}}}
QUESTION, ANSWER = Message("user", "Who?"), Message("assistant", "Emma.")
TOKENIZERS = {
    "llama3": named("llama3").control,
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "none": (),
}


def advised(error: PromptError) -> list[str]:
    return re.findall(r"template=(\w+)", str(error.fix))


def works(tokenizer: Any, name: str, tools: list[Any]) -> bool:
    return bool(Template.from_tokenizer(tokenizer, name).render([QUESTION, ANSWER], tools))


@pytest.mark.parametrize("control", TOKENIZERS)
def test_a_base_model_is_told_what_works(control: str) -> None:
    tokenizer = byte_tokenizer(TOKENIZERS[control])
    with pytest.raises(PromptError, match="no chat template") as error:
        Template.from_tokenizer(tokenizer)
    names = advised(error.value)
    assert control in names or control == "none"
    assert names
    assert all(works(tokenizer, name, []) for name in names)


@pytest.mark.parametrize("control", TOKENIZERS)
@pytest.mark.parametrize("name", template_names())
def test_a_template_that_does_not_fit_names_others_that_do(control: str, name: str) -> None:
    tokenizer = byte_tokenizer(TOKENIZERS[control])
    if (error := refusal(tokenizer, name)) is None:
        return
    names = advised(error)
    assert name not in names
    assert "Remove `template`" not in str(error.fix), "there is no template of its own"
    for other in names:
        fitting = Template.from_tokenizer(tokenizer, other)
        if "tools" in str(error.what):
            fitting.lay_out([QUESTION, ANSWER], [TOOL])
    assert names or "take another model" in str(error.fix)


def refusal(tokenizer: Any, name: str) -> PromptError | None:
    try:
        Template.from_tokenizer(tokenizer, name).lay_out([QUESTION, ANSWER], [TOOL])
    except PromptError as error:
        return error
    return None


def test_tools_with_chatml_lead_to_qwen() -> None:
    template = Template.from_tokenizer(byte_tokenizer(TOKENIZERS["chatml"]), "chatml")
    with pytest.raises(PromptError, match="does not render tools") as error:
        template.lay_out([QUESTION, ANSWER], [TOOL])
    assert advised(error.value)[0] == "qwen"
    assert named("qwen").control == TOKENIZERS["chatml"]
