"""How modules import each other: in no circle, and inside functions only to keep a heavy library out."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import sartor

ROOT = Path(sartor.__file__).parent
LIGHT = sys.stdlib_module_names | {"sartor"}
KEPT_OUT = {"readline", "sartor.cli.console"}
"""readline changes how `input()` behaves; console brings rich's tables and bars, 75 ms that `--help` does not need."""
ALWAYS_LOADED = {"pydantic", "pydantic_core", "typing_extensions", "yaml", "typer", "click"}
"""Third-party packages that every command loads anyway."""


def module_of(file: Path) -> str:
    parts = ("sartor", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES: Mapping[str, Path] = {module_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def targets(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement loads: ours by full name, others by their package."""
    if isinstance(node, ast.Import):
        yield from (alias.name if alias.name in FILES else alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in FILES else node.module if node.module in FILES else node.module.partition(".")[0]


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(body: list[ast.stmt], *, types: bool, inside: bool) -> Iterator[ast.stmt]:
    """The import statements of a module: at its top, with `types` under TYPE_CHECKING, with `inside` in functions."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif is_type_checking(node) and not types:
            continue
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if inside:
                yield from (n for n in ast.walk(node) if isinstance(n, (ast.Import, ast.ImportFrom)))
        else:
            for name in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, name, []), types=types, inside=inside)
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body, types=types, inside=inside)


@cache
def imports(module: str, *, types: bool = False, inside: bool = False) -> frozenset[str]:
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    return frozenset(t for node in statements(tree.body, types=types, inside=inside) for t in targets(node))


@cache
def loaded(module: str) -> frozenset[str]:
    """The third-party packages that importing a module of ours loads."""
    seen, todo, found = {module}, [module], set[str]()
    while todo:
        current = todo.pop()
        for target in imports(current):
            if target not in FILES:
                found.add(target)
            elif target not in seen:
                seen.add(target)
                todo.append(target)
        parent = current.rpartition(".")[0]
        if parent in FILES and parent not in seen:
            seen.add(parent)
            todo.append(parent)
    return frozenset(found) - LIGHT


def local_imports(module: str) -> Iterator[tuple[int, str]]:
    """(line, target) of each import inside a function."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    top = {id(node) for node in statements(tree.body, types=True, inside=False)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in top:
            yield from ((node.lineno, target) for target in targets(node))


def test_imports_inside_functions_keep_a_heavy_library_out() -> None:
    needless = []
    for module in FILES:
        here = loaded(module) | ALWAYS_LOADED
        for line, target in local_imports(module):
            brings = loaded(target) if target in FILES else {target} - LIGHT
            if not brings - here and target not in KEPT_OUT:
                needless.append(f"{FILES[module].relative_to(ROOT)}:{line} {target}")
    assert needless == []


def test_no_module_imports_itself_in_a_circle() -> None:
    """Not even through imports inside functions or under TYPE_CHECKING."""
    edges = {m: [t for t in imports(m, types=True, inside=True) if t in FILES and t != m] for m in FILES}
    circles = [sorted(group) for group in strongly_connected(edges) if len(group) > 1]
    assert circles == []


def strongly_connected(edges: Mapping[str, list[str]]) -> list[list[str]]:
    """Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            found.append(group)

    for node in edges:
        if node not in index:
            visit(node)
    return found
