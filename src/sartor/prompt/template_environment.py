"""The Jinja environment for chat templates: transformers' own, with every operation paid for from a budget.

A chat template is a program from elsewhere. The sandbox keeps it from reading files; it does not keep `'a' * 10**10`
from taking all memory, nor nested loops from running for a year. Here loops, macros and branches count steps, and
whatever reads or makes text pays for its characters before it does. What is not known to be bounded is refused by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinMethodType, GeneratorType
from typing import Any

from jinja2 import nodes
from jinja2.environment import Template as JinjaTemplate
from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context

from sartor.prompt.template_budget import (
    CALL_STEPS,
    CURRENT,
    ITEM,
    Budget,
    OverBudget,
    depth,
    pay_format,
    pay_join,
    pay_operator,
    pay_replace,
    pay_split,
    weight,
)
from sartor.prompt.tracing import TracingStr, hidden, joined

MAX_SOURCE = 1 << 18
"""Characters of a template's source; the longest public ones have 20,000."""
ESCAPED = 6
"""Characters that JSON may write for one."""
STATIC = 64
"""Characters of a template's own text that count as a step."""
_REFUSED = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.EvalContextModifier)
_REPEATED = (nodes.Template, nodes.Block, nodes.For, nodes.Macro, nodes.CallBlock)
_BRACES = r"\{[^{}]*[{}]?"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FREE = _names("attr count d default first items last length safe")
FLAT = _names("batch list map reject rejectattr reverse select selectattr slice")
DEEP = _names(
    "abs capitalize center dictsort e escape float format groupby indent int join lower max min "
    "replace round sort string sum title tojson trim truncate unique upper"
)
"""Filters by what they read: nothing but the value itself, its elements, everything in it."""
UNSEEN = _names("float int safe")
"""Filters that read a text without calling one of its methods."""
TEXT_METHODS = _names(
    "capitalize casefold center count endswith expandtabs find format index isalnum isalpha isascii "
    "isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust "
    "lower lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit "
    "rstrip split splitlines startswith strip swapcase title upper zfill"
)
OTHER_METHODS: dict[Any, frozenset[str]] = {
    dict: _names("copy get items keys values"),
    (list, tuple): _names("copy count index"),
}
QUICK_METHODS = _names("endswith lstrip rstrip startswith strip")
QUICK_FILTERS = _names("lower string trim upper")
COMPARING = _names("!= < <= == > >= eq equalto ge greaterthan gt in le lessthan lower lt ne upper")


def render(template: JinjaTemplate, values: Mapping[str, Any]) -> str:
    """Render within a new budget, larger for a longer conversation. Raises: OverBudget, and whatever a template may."""
    messages = values.get("messages") or ()
    size = weight([messages, values.get("tools")], 1 << 62)
    token = CURRENT.set(Budget(size, len(messages)))
    try:
        text = template.render(values)
        return text if type(text) is str else str.__str__(text)  # no longer a TracingStr
    finally:
        CURRENT.reset(token)


def compiled(source: str) -> JinjaTemplate:
    """A chat template ready to render. Raises: OverBudget for a long one; jinja2.TemplateSyntaxError."""
    if len(source) > MAX_SOURCE:
        raise OverBudget(f"its source has {len(source)} characters, more than {MAX_SOURCE}")
    return environment().from_string(source)


@functools.cache
def environment() -> BoundedEnvironment:
    """transformers' environment with a budget."""
    from transformers.utils import chat_template_utils

    return BoundedEnvironment(chat_template_utils._compile_jinja_template("").environment)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Counts what `theirs` would simply do. The results are the same."""

    concat = staticmethod(joined)
    intercepted_binops = frozenset({"+", "-", "*", "**", "%"})

    def __init__(self, theirs: Any) -> None:
        super().__init__(
            trim_blocks=theirs.trim_blocks,
            lstrip_blocks=theirs.lstrip_blocks,
            keep_trailing_newline=theirs.keep_trailing_newline,
            undefined=theirs.undefined,
            extensions=[type(extension) for extension in theirs.extensions.values()],
            optimized=False,  # the optimizer would evaluate constant expressions while compiling
        )
        known = FREE | FLAT | DEEP
        self.filters = {name: _paid(name, made) for name, made in theirs.filters.items() if name in known}
        self.filters |= {f"_{step.__name__}": step for step in (spend, shown, read, searched, sliced, size, concat)}
        self.tests = {n: _paid_test(made) if n in COMPARING else made for n, made in theirs.tests.items()}
        self.globals = {name: value for name, value in theirs.globals.items() if name != "lipsum"}

    def _generate(self, source: nodes.Template, *args: Any, **options: Any) -> str:
        _count_in(source)
        source.set_environment(self)
        return super()._generate(source, *args, **options)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        pay_operator(CURRENT.get(), operator, left, right)
        made = self.binop_table[operator](left, right)
        return made if operator == "+" else hidden(made)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if type(__obj) is BuiltinMethodType and not kwargs and (owed := _quick(__obj, args)) is not None:
            CURRENT.get().read(owed)
            return __obj(*args)
        if isinstance(__obj, (Macro, LoopContext, BlockReference)):
            return super().call(__context, __obj, *args, **kwargs)
        budget = CURRENT.get()
        args = _pay_call(budget, __obj, args, kwargs)
        return hidden(_pay_result(budget, super().call(__context, __obj, *args, **kwargs)))


def _quick(called: Any, args: tuple[Any, ...]) -> int | None:
    """What a call costs if it is one of the few that templates make all the time."""
    owner = called.__self__
    if type(owner) is dict and called.__name__ == "get" and args and type(args[0]) is str:
        return 1
    if type(owner) is str and called.__name__ in QUICK_METHODS and all(type(arg) is str for arg in args):
        return len(owner) + sum(map(len, args))
    return None


def _pay_call(budget: Budget, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Pay for a call of a method or a global; returns its arguments, with lazy ones made."""
    if isinstance(called, type) and issubclass(called, Namespace):
        return args
    owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
    if isinstance(owner, TracingStr):
        name = called.__func__.__qualname__
    elif (wrapped := getattr(called, "__wrapped__", None)) is not None and name in ("format", "format_map"):
        owner = wrapped.__self__  # the sandbox's own version of a string's method
    allowed = next((names for kind, names in OTHER_METHODS.items() if isinstance(owner, kind)), None)
    if isinstance(owner, str):
        allowed = TEXT_METHODS
    if allowed is not None and name not in allowed:
        raise SecurityError(f"templates do not run {type(owner).__name__}.{name}")
    if isinstance(owner, dict):
        budget.read_all(args[:1])
        return args
    budget.numbers([*args, *kwargs.values()])
    args = tuple(list(arg) if isinstance(arg, GeneratorType) else arg for arg in args)
    budget.read_all(args)
    budget.read_all(kwargs)
    if isinstance(owner, str):
        _pay_method(budget, owner, name, (*args, *kwargs.values()))
    elif owner is not None:
        budget.read_all(owner)
    return args


def _pay_method(budget: Budget, text: str, name: str, given: tuple[Any, ...]) -> None:
    budget.read(str.__len__(text))
    if name == "join" and given:
        pay_join(budget, text, given[0])
    elif name == "replace" and len(given) > 1:
        pay_replace(budget, text, given[0], given[1])
    elif name == "format":
        pay_format(budget, text, given, _BRACES, r"\{[^{}]*\{")
    elif name == "expandtabs":
        size = next((value for value in given if isinstance(value, int)), 8)
        budget.read(str.count(text, "\t") * abs(size))
    elif name in ("split", "rsplit", "splitlines"):
        pay_split(budget, text, given[0] if given else None)


def _pay_result(budget: Budget, result: Any) -> Any:
    if isinstance(result, GeneratorType):
        return budget.count(result)
    budget.read_flat(result)
    return result


def _paid(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays first. Jinja's own marks on the function (what is passed first) are kept."""
    if name in FREE and name not in UNSEEN:
        return made
    first = int(getattr(made, "jinja_pass_arg", None) is not None)

    @functools.wraps(made)
    def paid(*args: Any, **kwargs: Any) -> Any:
        budget = CURRENT.get()
        if name in UNSEEN and args[first:] and isinstance(args[first], TracingStr):
            args[first].trace.methods[name] = None
        if name in QUICK_FILTERS and len(args) == first + 1 and not kwargs and type(args[first]) is str:
            budget.read(len(args[first]))
            return made(*args)
        given = [list(arg) if name in DEEP and isinstance(arg, GeneratorType) else arg for arg in args[first:]]
        budget.numbers([*given[1:], *kwargs.values()])
        if name in FLAT and given:
            budget.read(ITEM * str.__len__(given[0])) if isinstance(given[0], str) else budget.read_flat(given[0])
        elif name in DEEP:
            for value in [*given, *kwargs.values()] if name != "tojson" else ():
                budget.read_all(value)
            _pay_growth(budget, name, given, kwargs)
        return hidden(_pay_result(budget, made(*args[:first], *given, **kwargs)))

    return paid


def _pay_growth(budget: Budget, name: str, given: list[Any], kwargs: Mapping[str, Any]) -> None:
    """Pay for what a filter writes beyond what it read."""
    rest = [*given[1:], *kwargs.values()]
    if name == "replace" and len(rest) > 1:
        text, old, new = (part if isinstance(part, str) else str(part) for part in (given[0], *rest[:2]))
        pay_replace(budget, text, old, new)
    elif name == "join":
        pay_join(budget, next(iter(rest), ""), given[0])
    elif name == "format":
        pay_format(budget, str(given[0]), rest, r"%[^A-Za-z%]*", r"\*")
    elif name == "sum" and isinstance(given[0], (list, tuple)):
        budget.read(len(given[0]) * weight(given, budget.characters))
    elif name in ("escape", "e", "title"):
        budget.read(ITEM * weight(given[0], budget.characters))
    elif name in ("indent", "tojson"):
        width = sum(abs(option) if isinstance(option, int) else weight(option, budget.characters) for option in rest)
        size = weight(given[0], budget.characters)
        budget.read((width + ESCAPED) * size)
        budget.read(width * size * depth(given[0]) if name == "tojson" and width else 0)


def _paid_test(made: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(made)
    def paid(*args: Any) -> Any:
        budget = CURRENT.get()
        for value in args:
            budget.read_all(value)
        return made(*args)

    return paid


@pass_context  # so that Jinja does not evaluate them while compiling
def spend(context: Context, steps: int) -> bool:
    CURRENT.get().spend(steps)
    return True


@pass_context
def shown(context: Context, value: Any) -> str:
    """What is written into the text."""
    CURRENT.get().read_all(value)
    return value if type(value) is str else str(value)


@pass_context
def read(context: Context, value: Any) -> Any:
    """An operand of a comparison, or a key."""
    CURRENT.get().read_all(value)
    return value


@pass_context
def searched(context: Context, value: Any) -> Any:
    """The right side of `in`: of a dict, nothing is read."""
    if not isinstance(value, dict):
        CURRENT.get().read_all(value)
    return value


@pass_context
def sliced(context: Context, value: Any) -> Any:
    CURRENT.get().read_flat(value)
    return value


@pass_context
def size(context: Context, value: Any) -> int:
    """A length that is compared with 0."""
    return int(bool(value)) if isinstance(value, TracingStr) else len(value)


@pass_context
def concat(context: Context, parts: list[Any]) -> str:
    """Jinja's `~`."""
    CURRENT.get().read_all(parts)
    return joined(map(str, parts))


def _count_in(tree: nodes.Node) -> None:
    """Put the counting into a template's syntax tree."""
    found = [*_all(tree), tree]
    for node in found:
        if isinstance(node, _REFUSED):
            raise SecurityError(f"templates do not run {type(node).__name__.lower()}")
        _replace_concat(node)
    steps = [(body, sum(map(_cost, body)) + 1) for node in found for body in _bodies(node)]
    for node in found:
        _pay_in(node)
    for body, cost in steps:
        line = body[0].lineno if body else 1
        body.insert(0, nodes.ExprStmt(_filter("spend", nodes.Const(cost), line), lineno=line))


def _bodies(node: nodes.Node) -> Iterator[list[nodes.Node]]:
    """What may run more often than what is around it; branches count as if all were taken."""
    if isinstance(node, _REPEATED):
        yield node.body


def _pay_in(node: nodes.Node) -> None:
    line = node.lineno
    if isinstance(node, nodes.Output):
        node.nodes = [n if isinstance(n, nodes.TemplateData) else _filter("shown", n, line) for n in node.nodes]
    elif isinstance(node, nodes.For) and node.test is not None:
        node.test = nodes.And(_filter("spend", nodes.Const(_cost(node.test) + 1), line), node.test, lineno=line)
    elif isinstance(node, nodes.Compare):
        _mark_emptiness(node)
        _pay_comparison(node)
    elif isinstance(node, nodes.Pair):
        node.key = _filter("read", node.key, line)
    elif isinstance(node, nodes.Getitem):
        if isinstance(node.arg, nodes.Slice):
            node.node = _filter("sliced", node.node, line)
        elif not _constant(node.arg):
            node.arg = _filter("read", node.arg, line)  # hashing a tuple reads all of it


def _mark_emptiness(node: nodes.Compare) -> None:
    """`text | length > 0` asks whether there is any text, and not how long it is."""
    measured = node.expr
    if len(node.ops) != 1 or not isinstance(measured, nodes.Filter) or measured.name not in ("length", "count"):
        return
    limit = node.ops[0].expr
    if isinstance(limit, nodes.Const) and limit.value == 0 and node.ops[0].op in ("gt", "eq", "ne") and measured.node:
        node.expr = _filter("size", measured.node, node.lineno)


def _pay_comparison(node: nodes.Compare) -> None:
    """Comparing with a constant costs no more than reading the constant."""
    if len(node.ops) == 1 and (_constant(node.ops[0].expr) or (_constant(node.expr) and "in" not in node.ops[0].op)):
        return
    if not _constant(node.expr):
        node.expr = _filter("read", node.expr, node.lineno)
    for operand in node.ops:
        operand.expr = _filter("searched" if operand.op in ("in", "notin") else "read", operand.expr, node.lineno)


def _constant(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Const) or (
        isinstance(node, (nodes.List, nodes.Tuple)) and all(map(_constant, node.items))
    )


def _replace_concat(node: nodes.Node) -> None:
    for field, value in list(node.iter_fields()):
        if isinstance(value, nodes.Concat):
            setattr(node, field, _concat(value))
        elif isinstance(value, list):
            value[:] = [_concat(item) if isinstance(item, nodes.Concat) else item for item in value]


def _concat(node: nodes.Concat) -> nodes.Filter:
    return _filter("concat", nodes.List(node.nodes, lineno=node.lineno), node.lineno)


def _filter(name: str, value: nodes.Expr, line: int) -> nodes.Filter:
    return nodes.Filter(value, f"_{name}", [], [], None, None, lineno=line)


def _all(node: nodes.Node) -> Iterator[nodes.Node]:
    """All nodes below one, innermost first."""
    for child in node.iter_child_nodes():
        yield from _all(child)
        yield child


def _cost(node: nodes.Node) -> int:
    """Steps of a statement or expression, without the repeated bodies in it, which count by themselves."""
    text = node.data if isinstance(node, nodes.TemplateData) else getattr(node, "value", "")
    inner = node.iter_child_nodes(exclude=("body",) if isinstance(node, _REPEATED) else None)
    own = CALL_STEPS if isinstance(node, (nodes.Filter, nodes.Call)) else 1
    return own + (len(text) // STATIC if isinstance(text, str) else 0) + sum(map(_cost, inner))
