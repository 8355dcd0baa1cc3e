"""Attacks by a chat template: it may be wrong and be refused, but takes neither all memory nor all time."""

from __future__ import annotations

import random
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template

from sartor.base.errors import PromptError
from sartor.base.types import Message
from sartor.prompt.messages import to_jinja
from sartor.prompt.named_templates import template_names
from sartor.prompt.template import Template
from sartor.prompt.template_budget import CHARACTERS, CURRENT, STEPS, Budget
from sartor.prompt.template_environment import MAX_SOURCE, compiled, environment, render
from support.byte_tokenizers import byte_tokenizer
from support.limited_child import outcomes
from support.public_templates import CALL, FILES, TOOL

MACRO = "{% macro m(d) %}{% if d %}{{ m(d - 1) * 2 }}{{ m(d - 1) }}{% else %}a{% endif %}{% endmacro %}{{ m(60) }}"
GROW = "{% set n = namespace(x=START) %}{% for i in range(LOOPS) %}{% set n.x = STEP %}{% endfor %}"


def grow(start: str, step: str, loops: int = 64, end: str = "{{ n.x }}") -> str:
    """A value that each turn of a loop makes larger."""
    return GROW.replace("START", start).replace("LOOPS", str(loops)).replace("STEP", step) + end


NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}X"
ENDS = "{% endfor %}" * 3


def long_text_in_loops(body: str) -> str:
    return grow("'ab'", "n.x ~ n.x", 20, NESTED.replace("X", body) + ENDS)


MEMORY = {
    "repeated": "{{ 'a' * 10**10 }}",
    "repeated backwards": "{{ 10**10 * 'a' }}",
    "a repeated list": "{{ ([1] * 10**10)|length }}",
    "a constant, folded while compiling": "{{ 'a'|center(10000000000) }}",
    "centered": "{{ 'a'|center(10**10) }}",
    "justified": "{{ 'a'.ljust(10**10) }}",
    "filled with zeros": "{{ '1'.zfill(10**10) }}",
    "tabs": "{{ '\t\t'.expandtabs(10**10) }}",
    "percent": "{{ '%10000000000d' % 1 }}",
    "percent with a star": "{{ '%*d' % (10**10, 1) }}",
    "format": "{{ '{:10000000000}'.format(1) }}",
    "format with a width from a value": "{{ '{:{}}'.format(1, 10**10) }}",
    "format_map": "{{ '{a:10000000000}'.format_map({'a': 1}) }}",
    "the format filter": "{{ '%10000000000d'|format(1) }}",
    "the same value many times": "{{ ('{0}' * 100000).format('a' * 100000) }}",
    "indented": "{{ 'a\na'|indent(10**10) }}",
    "json indented": "{{ tools|tojson(indent=10**10) }}",
    "json separators": "{{ (range(99999)|list)|tojson(separators=('a' * 99999, ':')) }}",
    "batch filled": "{{ [1]|batch(10**10, 'x')|list }}",
    "slices": "{{ [1]|slice(10**10)|list }}",
    "lipsum": "{{ lipsum(10**9) }}",
    "wordwrap": "{{ ('a ' * 999999)|wordwrap(1, wrapstring='b' * 99999) }}",
    "bytes": "{{ (1).to_bytes(10**10, 'big') }}",
    "encoded": "{{ ('a' * 999999).encode('utf-32').hex() }}",
    "a large power": "{{ 10 ** (10 ** 10) }}",
    "powers of powers": grow("9", "n.x ** n.x"),
    "products": grow("9", "n.x * n.x"),
    "doubled by ~": grow("'a'", "n.x ~ n.x"),
    "doubled by +": grow("'a'", "n.x + n.x"),
    "doubled by join": grow("'a'", "[n.x, n.x]|join"),
    "doubled by str.join": grow("'a'", "n.x.join(['', '', ''])"),
    "doubled by format": grow("'a'", "'%s%s' % (n.x, n.x)"),
    "doubled by replace": grow("'a'", "n.x.replace('a', 'aa')"),
    "doubled by the replace filter": grow("'a'", "n.x|replace('a', 'aa')"),
    "replaced between all": grow("'a'", "n.x.replace('', n.x)"),
    "escaped": grow("'&'", "n.x|string|e|string|replace('&', '&&')"),
    "json of json": grow("'\"'", "n.x|tojson"),
    "a doubled list": grow("[1]", "n.x + n.x", end="{{ n.x|length }}"),
    "a doubled tuple": grow("(1,)", "n.x + n.x", end="{{ n.x|length }}"),
    "a list of all": grow("[]", "n.x + ['a' * 999]", 99999, "{{ n.x|length }}"),
    "lists kept": grow("[]", "n.x + [range(99999)|list]", 9999, ""),
    "split": grow("'a '", "n.x ~ n.x", 22, "{{ (n.x.split() + n.x.split(' ') + n.x.split())|length }}" * 9),
    "a list of letters": grow("'a'", "n.x ~ n.x", 25, "{{ n.x|list|length }}"),
    "sum of lists": "{{ (([[1] * 99] * 9999)|sum(start=[]))|length }}",
    "shared lists, shown": grow("[1]", "[n.x, n.x]"),
    "shared dicts, as JSON": grow("1", "{'a': n.x, 'b': n.x}", end="{{ n.x|tojson }}"),
    "shared lists, joined": grow("[1]", "[n.x, n.x]", end="{{ n.x|join }}"),
    "shared lists, as text": grow("[1]", "[n.x, n.x]", end="{% set y = n.x|string %}"),
    "a namespace, shown": grow("[1]", "[n.x, n.x]", end="{{ n }}"),
    "items, shown": grow("[1]", "[n.x, n.x]", end="{{ {'a': n.x}.items() }}"),
    "a macro in a macro": MACRO,
    "a set block": grow(
        "'a'", "n.x", 40, "{% set y %}{% for i in range(99999) %}" + "b" * 9999 + "{% endfor %}{% endset %}"
    ),
}
TIME = {
    "nested ranges": NESTED.replace("X", "") + ENDS,
    "nested ranges with text": NESTED.replace("X", "a") + ENDS,
    "a filtered loop": "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}{% endfor %}",
    "lazy filters": "{% for a in range(99999) %}{{ range(99999)|map('string')|select('eq', 'a')|list }}{% endfor %}",
    "a recursive loop": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "shared lists, compared": grow(
        "[1]",
        "[n.x, n.x]",
        end=grow("[1]", "[n.x, n.x]", end="").replace("n.x", "m.x").replace("set n =", "set m =") + "{{ n.x == m.x }}",
    ),
    "shared tuples, hashed": grow("(1,)", "(n.x, n.x)", end="{{ {n.x: 1} }}"),
    "shared tuples, looked up": grow("(1,)", "(n.x, n.x)", end="{{ {}[n.x] }}{{ {}.get(n.x) }}{{ n.x in {} }}"),
    "shared tuples, unique": grow("(1,)", "(n.x, n.x)", end="{{ [n.x]|unique|list }}"),
    "shared lists, sorted": grow("[1]", "[n.x, n.x]", end="{{ [n.x, n.x]|sort }}"),
    "a long text searched often": long_text_in_loops("{% if 'ba'*9 in n.x %}{% endif %}"),
    "a long text sliced often": long_text_in_loops("{% set y = n.x[1:] %}"),
    "a long text stripped often": long_text_in_loops("{% set y = n.x.strip('b') %}"),
    "a long list copied often": NESTED.replace("X", "{% set y = (range(99999)|list)[1:] %}") + ENDS,
    "a budget filled up again": "{{ (-10**15)|_spend }}" + NESTED.replace("X", "{{ (-10**9)|_spend }}") + ENDS,
    "a budget filled up by map": "{% for i in range(99999) %}{{ [-10**15]|map('_spend')|list }}{% endfor %}" * 99,
}
BROKEN = {
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a block in itself": "{% block b %}{{ self.b() }}{% endblock %}",
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "deep conditions": "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "deep loops": "{% for a in [1] %}" * 50 + "{% endfor %}" * 50,
    "a long sum": "{{ " + "1+" * 20000 + "1 }}",
    "a number with many digits": "{{ " + "9" * 9000 + " }}",
    "division by zero": "{{ 1 / 0 }}",
    "another file": "{% include '/etc/passwd' %}",
    "another template": "{% extends 'x' %}",
    "an import": "{% import 'x' as x %}",
    "autoescape": "{% autoescape true %}{{ '&' * 9 }}{% endautoescape %}",
    "a class": "{{ ''.__class__.__mro__ }}",
    "a class by filter": "{{ ''|attr('__class__')|attr('__mro__') }}{{ raise_exception('none') }}",
    "a class by format": "{{ '{0.__class__.__mro__}'.format(1) }}{{ raise_exception('none') }}",
    "a global of a function": "{{ raise_exception.__globals__.keys() }}",
    "a list changed": "{{ messages.append(1) }}",
    "an unknown filter": "{{ 1|pprint }}",
    "a long source": "a" * (MAX_SOURCE + 1),
    "an open comment": "{#" * 9999,
    "an open quote": "{{ '" + "\\'" * 9999,
}


@pytest.mark.parametrize("attacks", [MEMORY, TIME, BROKEN], ids=["memory", "time", "broken"])
def test_an_attack_is_refused_within_memory_and_time(attacks: dict[str, str]) -> None:
    """In a child that dies beyond a gigabyte, or five seconds of its processor for each."""
    found = dict(zip(attacks, outcomes(list(attacks.values()), 5 * len(attacks)), strict=True))
    assert {name: ended for name, ended in found.items() if ended in ("ok", "MemoryError")} == {}


PIECES = [
    "n.x",
    "n.y",
    "'ab'",
    "[n.x]",
    "[n.x, n.y]",
    "(n.x, n.y)",
    "{'a': n.x}",
    "messages",
    "tools",
    "9",
    "99999",
    "n",
]
FORMS = [
    "{0} ~ {1}",
    "{0} + {1}",
    "{0} * {1}",
    "{0} ** 9",
    "'%s %s' % ({0}, {1})",
    "{0}|string",
    "{0}|tojson",
    "{0}|list",
    "{0}|join({1})",
    "{0}|replace('a', {1}|string)",
    "{0}|string|center({1}|int)",
    "{0}|batch(3, {1})|list",
    "{0}[1:]",
    "{0}|indent({1}|int)",
    "{0}|e",
    "{0}|sort",
    "{0}|sum(start={1})",
    "({0}|string).split()",
    "{0}|map('string')|list",
    "'{{0}}{{1}}'.format({0}, {1})",
    "{0} == {1}",
    "{0} in {1}",
    "{0}|dictsort",
    "({0}|string).join([{1}|string] * 9)",
    "{0}|tojson(indent=4)",
    "{0}|unique|list",
    "{0}|groupby('a')",
    "dict({0})",
    "range({0}|length)|list",
    "{0}|title",
]


def random_program(random_: random.Random) -> str:
    def expression() -> str:
        form = random_.choice(FORMS)
        return "(" + form.format(random_.choice(PIECES), random_.choice(PIECES)) + ")"

    body = "".join(f"{{% set n.{random_.choice('xy')} = {expression()} %}}" for _ in range(random_.randint(1, 4)))
    loops = random_.choice([3, 60, 9999])
    for _ in range(random_.randint(1, 2)):
        body = f"{{% for i in range({loops}) %}}{body}{{% endfor %}}"
    return "{% set n = namespace(x='a', y=[1]) %}" + body + "{{ n.x }}{{ n.y|tojson }}"


def test_random_programs_stay_within_memory_and_time(trials: int) -> None:
    random_ = random.Random(11)
    programs = [random_program(random_) for _ in range(20 + trials)]
    ended = outcomes(programs, 10 * len(programs))
    assert len(ended) == len(programs)
    assert "OverBudget" in ended
    assert "MemoryError" not in ended


def conversations() -> list[dict[str, Any]]:
    system, question, answer = (
        Message("system", " Be\nbrief. "),
        Message("user", " Who?\n"),
        Message("assistant", " She. "),
    )
    thought = Message("assistant", "Yes.", reasoning="Hm.\n")
    rows: list[tuple[list[Message], list[Any]]] = [
        ([question], []),
        ([system, question, answer, question, thought], []),
        ([question, CALL, Message("tool", "1815"), answer], [TOOL]),
        ([system, question], [TOOL, TOOL]),
    ]
    return [
        {"messages": [to_jinja(m) for m in messages], "tools": tools or None, "add_generation_prompt": prompt}
        for messages, tools in rows
        for prompt in (False, True)
    ]


SOURCES = {name: file.read_text(encoding="utf-8") for name, file in FILES.items()}
SOURCES |= {
    f"ours: {name}": resources.files("sartor.prompt.templates").joinpath(f"{name}.jinja").read_text(encoding="utf-8")
    for name in template_names()
}


@pytest.mark.parametrize("name", list(SOURCES))
def test_public_templates_render_as_in_transformers(name: str) -> None:
    theirs, ours = _compile_jinja_template(SOURCES[name]), compiled(SOURCES[name])
    same = 0
    for values in conversations():
        given = {"bos_token": "<s>", "eos_token": "</s>", "strftime_now": lambda form: "26 Jul 2024", **values}
        try:
            wanted = theirs.render(given)
        except Exception as error:
            with pytest.raises(type(error)):
                render(ours, given)
            continue
        same += 1
        assert render(ours, given) == wanted
    assert same or name in ("cohere", "idefics3")


@pytest.mark.parametrize("name", list(SOURCES))
def test_a_public_template_needs_a_hundredth_of_the_budget_and_twice_as_much_for_twice_the_turns(name: str) -> None:
    def used(turns: int) -> tuple[int, int]:
        messages = [{"role": role, "content": "word " * 40} for _ in range(turns) for role in ("user", "assistant")]
        budget = Budget()
        token = CURRENT.set(budget)
        try:
            compiled(SOURCES[name]).render(messages=messages, bos_token="<s>", eos_token="</s>", tools=None)
        except Exception:
            pytest.skip("it does not render this conversation")
        finally:
            CURRENT.reset(token)
        return STEPS - budget.steps, CHARACTERS - budget.characters

    few, many = used(10), used(40)
    assert few[0] < STEPS / 100
    assert few[1] < CHARACTERS / 100
    assert many[0] <= 16 * few[0], "at most the square of the turns"
    assert many[1] <= 16 * few[1]


def test_what_is_refused_is_told_at_once_with_its_name() -> None:
    body = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    for attack, says in (
        ("{{ 'a' * 10**10 }}", "too much text"),
        (NESTED.replace("X", "") + ENDS, "too many steps"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ '%99999d' % 1 }}", "width"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "recursion"),
        ("x" * MAX_SOURCE, "characters"),
    ):
        with pytest.raises(PromptError, match=says):
            Template.from_tokenizer(byte_tokenizer(("<|im_start|>", "<|im_end|>"), attack + body))


def test_a_refusal_inside_a_refusal_is_one_sentence() -> None:
    body = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    attack = "{% if messages | length > 4 %}{{ 'a' * 10**10 }}{% endif %}"
    tokenizer = byte_tokenizer(("<|im_start|>", "<|im_end|>"), body + attack)
    turns = [Message("user", "Who?"), Message("assistant", "Me.")] * 3
    with pytest.raises(PromptError, match=r"Unsupported template: .* too much text\.\n"):
        Template.from_tokenizer(tokenizer).segments(turns)


def test_a_budget_belongs_to_one_rendering_in_one_thread() -> None:
    source = compiled("{% for m in messages %}{{ m.content }}{% endfor %}")
    values = {"messages": [{"content": "x" * 1000}]}
    for _ in range(3):
        assert render(source, values) == "x" * 1000
    assert CURRENT.get(None) is None
    assert environment() is environment()


def test_a_template_file_is_read_up_to_its_limit_and_as_text(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(("<|im_start|>", "<|im_end|>"), "")
    (tmp_path / "long.jinja").write_text("a" * (MAX_SOURCE * 8), encoding="utf-8")
    (tmp_path / "bytes.jinja").write_bytes(b"\xff\xfe\x00")
    for name, says in (("long", "characters"), ("bytes", "decode"), ("none", "No such file")):
        with pytest.raises(PromptError, match=says):
            Template.from_tokenizer(tokenizer, str(tmp_path / f"{name}.jinja"))
