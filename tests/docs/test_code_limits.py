"""Functions stay short and take few parameters; where one does not, a comment beside it says why."""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "sartor"
MAX_LINES, MAX_PARAMETERS = 60, 7


def test_a_long_function_or_parameter_list_has_its_reason_beside_it() -> None:
    without = []
    for file in sorted(SOURCE.rglob("*.py")):
        lines = file.read_text(encoding="utf-8").split("\n")
        for node in ast.walk(ast.parse("\n".join(lines))):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            parameters = [a for a in arguments if a.arg not in ("self", "cls", "ctx")]
            first = min(node.lineno, *(d.lineno for d in node.decorator_list), node.lineno)
            reason = "#" in lines[first - 2] or "#" in lines[node.lineno - 1]
            too_long = (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_LINES
            if (too_long or len(parameters) > MAX_PARAMETERS) and not reason:
                without.append(f"{file.relative_to(SOURCE)}:{node.lineno} {node.name}")
    assert without == []


def test_the_formatter_is_obeyed() -> None:
    root = SOURCE.parents[1]
    files = [file for folder in ("src", "tests", "bench", "tools") for file in (root / folder).rglob("*.py")]
    assert [file for file in files if "fmt: " + "skip" in file.read_text(encoding="utf-8")] == []


def test_plug_ins_are_asked_through_their_contracts() -> None:
    """No module is probed for what it has, and what has a type is not Any."""
    untyped = re.compile(r"\b(objective|stage|optimizer|scheduler|accelerator)\w*: Any\b")
    probed = re.compile(r"\bhasattr\((stage|source|metric|exporter|rule|backend|format|plugin)\b")
    loaders = {SOURCE / "base" / "registry.py", SOURCE / "data" / "remote.py"}  # a dataset's own script is a module
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if untyped.search(text) or probed.search(text) or ("ModuleType" in text and file not in loaders):
            found.append(str(file.relative_to(SOURCE)))
    assert found == []
