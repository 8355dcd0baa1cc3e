"""What refused and odd conversations leave behind in memory: little, whatever they contain."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from sartor.base.errors import PromptError
from sartor.base.types import Message
from sartor.prompt.layout import Layout
from sartor.prompt.layout_cache import LayoutCache
from sartor.prompt.template import Template
from support.byte_tokenizers import byte_tokenizer

TOOLS_AND_ROLES = (
    "{%- for t in tools or [] %}<|im_start|>{{ t | tojson }}{% endfor %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'tool' %}{{ raise_exception('No tools: ' ~ m.content) }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def template() -> Template:
    return Template.from_tokenizer(byte_tokenizer(("<|im_start|>", "<|im_end|>"), TOOLS_AND_ROLES))


def test_layouts_are_kept_within_characters_and_the_newest_stay(trials: int) -> None:
    cache = LayoutCache(max_layouts=50, max_characters=100_000)
    for number in range(20 * trials):
        cache.put(number, Layout(("x" * 9000,), ()), 10)
        assert cache.characters <= 100_000
    assert cache.get(20 * trials - 1) is not None
    assert len(cache) == 10
    cache.put("long", Layout(("x" * 200_000,), ()), 10)
    assert cache.get("long") is None
    for number in range(200):
        cache.put(("short", number), Layout(("x",), ()), 10)
    assert len(cache) == 50


def test_a_layout_that_is_asked_for_stays() -> None:
    cache = LayoutCache(max_layouts=3)
    for number in range(10):
        cache.put(number, Layout(("x",), ()), 1)
        assert cache.get(0) is not None


def test_conversations_with_long_tools_do_not_fill_the_memory(template: Template, trials: int) -> None:
    for number in range(10 * trials):
        tool = {"type": "function", "function": {"name": f"f{number}", "description": "x" * 1_000_000}}
        template.lay_out([Message("user", "Hi")], [tool], generation=True)
    assert template._layouts.characters <= template._layouts.max_characters
    assert not any("xxx" in str(key) for key in template._layouts._kept), "a key is a hash"


class Text(str):
    """A text whose end of life can be seen."""


def test_a_refused_conversation_leaves_nothing(template: Template) -> None:
    text = Text("secret " * 100_000)
    gone: list[Any] = []
    weakref.finalize(text, gone.append, True)
    with pytest.raises(PromptError) as refused:
        template.lay_out([Message("user", "Hi"), Message("tool", text)], generation=True)
    with pytest.raises(PromptError):
        template.render([Message("user", "Hi"), Message("tool", text)])
    assert len(str(refused.value)) < 2000
    del text
    refused.value.__traceback__ = None
    del refused
    gc.collect()
    assert gone == [True]
    assert template._layouts.characters < 20_000
