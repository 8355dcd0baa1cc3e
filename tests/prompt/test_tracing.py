"""A template that looks into texts is rendered anew for those that it would treat otherwise, and only for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.base.errors import PromptError
from sartor.base.types import Message
from sartor.prompt import template_environment
from sartor.prompt.template import Template
from support.byte_tokenizers import byte_tokenizer
from support.public_templates import FILES, REFUSED, template_of

CHATML = ("<|im_start|>", "<|im_end|>")
SHELL = (
    "{%- macro put(text) %}{{ text }}{% endmacro %}{% for m in messages %}{% set c = m.content %}"
    "{{ '<|im_start|>' + m.role + '\n' }}%s{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SEARCHED = {
    "contains": "{{ c }}{{ '!' if 'x' in c }}",
    "split": "{{ c.split('</x>')[-1] }}",
    "replaced": "{{ c | replace('x', 'yy') }}",
    "macro": "{{ put(c).split('x')[0] }}",
    "block": "{% set b %}{{ c }}{% endset %}{{ b | replace('x', '') }}",
    "begins": "{{ '>' if c.startswith(('x', 'ab')) }}{{ c }}",
    "edges": "{{ c.strip('xy') }}",
    "lines": "{{ c.rstrip('\n') }}",
    "equal": "{{ 'same' if c == 'xx' else '' }}{{ c }}",
    "emptiness": "{{ '!' if c | replace('x', '') | trim | length > 0 }}{{ c }}",
    "partition": "{{ c.partition('x')[0] }}",
}
INSPECTED = {
    "length": "{{ '!' if c | length > 900 }}{{ c }}",
    "length of a concatenation": "{{ '!' if ('a' ~ c) | length > 900 }}{{ c }}",
    "a part": "{{ '!' if c[0] == 'x' }}{{ c }}",
    "number": "{{ '!' if c | int > 5 }}{{ c }}",
    "concatenation": "{{ '!' if 'ax' in (put(c) ~ 'x') }}{{ c }}",
    "format": "{{ '!' if 'x' in '%s' % c }}{{ c }}",
    "json": "{{ '!' if 'x' in c | tojson }}{{ c }}",
    "join": "{{ '!' if 'x' in [c, 'b'] | join }}{{ c }}",
    "words": "{{ '!' if c.split() | length > 20 }}{{ c }}",
    "upper": "{{ '!' if c | upper == 'AX' }}{{ c }}",
    "safe": "{{ '!' if 'x' in (c | safe) }}{{ c }}",
    "found in the placeholder": "{{ '!' if ' ' in c }}{{ c }}",
}
TEXTS = st.lists(
    st.sampled_from(["x", "y", "a", "b", " ", "\n", "</x>", "7", "zz", "é", "a " * 30, "x" * 1000]), max_size=6
).map("".join)


def of(inside: str) -> Template:
    return Template.from_tokenizer(byte_tokenizer(CHATML, SHELL.replace("%s", inside)))


@pytest.mark.parametrize("name", [*SEARCHED, *INSPECTED])
@given(texts=st.lists(TEXTS, min_size=2, max_size=2))
@settings(deadline=None, max_examples=40)
def test_every_layout_is_the_rendering(name: str, texts: list[str]) -> None:
    template = of({**SEARCHED, **INSPECTED}[name])
    messages = (Message("user", texts[0]), Message("assistant", texts[1]))
    try:
        laid_out = template.lay_out(messages).text
    except PromptError:
        return  # refused by name
    assert laid_out == template.render(messages)


@pytest.mark.parametrize("name", [*SEARCHED, *INSPECTED])
def test_what_is_only_searched_for_is_known_beforehand(name: str) -> None:
    layout = of({**SEARCHED, **INSPECTED}[name]).lay_out((Message("user", "b"), Message("assistant", "c"))).layout
    assert bool(layout.traced) is (name in INSPECTED)
    assert name in INSPECTED or layout.needles or layout.edges


@pytest.mark.skipif(not FILES, reason="TRL is not installed")
def test_public_templates_render_few_texts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second conversation of a structure costs no rendering, under nearly all templates."""
    count = 0
    real = template_environment.render

    def counted(*args: Any) -> str:
        nonlocal count
        count += 1
        return real(*args)

    anew = []
    for name in (name for name in FILES if name not in REFUSED):
        _, template = template_of(name)
        for text in ("Jane", "Anne"):
            with monkeypatch.context() as patch:
                patch.setattr(template_environment, "render", counted)
                count = 0
                template.lay_out((Message("user", text), Message("assistant", text, reasoning=text)))
        if count:
            anew.append(name)
    assert not anew
