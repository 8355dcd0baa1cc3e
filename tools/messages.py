"""Message catalogs: extract what `src/sartor` shows into `locale/*/LC_MESSAGES/sartor.po`, compile them, or check them.

python tools/messages.py update   # add new messages, drop unused ones, compile
python tools/messages.py check    # fail when a catalog is stale, incomplete, or has other placeholders
"""

from __future__ import annotations

import ast
import io
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

SOURCE = Path(__file__).parents[1] / "src" / "sartor"
LOCALE = SOURCE / "locale"
DATE = datetime(2026, 11, 24, tzinfo=UTC)
"""Fixed, so that a catalog changes only with its messages."""
TRANSLATED_CALLS = {"tr", "t", "Text"}
ERROR_NAME = re.compile(r"(?!Pydantic)[A-Z]\w*(Error|Exceeded|Interrupted|OutOfMemory|QueueFull)")
Message = str | tuple[str, str]


def literals(node: ast.expr | None) -> Iterator[str]:
    """The strings that an argument may be: a literal, or both sides of a conditional."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)


def messages_of_call(node: ast.Call) -> Iterator[Message]:
    """The messages in one call: `tr`, `ntr`, `t`, an error's what and fix, a reason, a setting's description, help."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in TRANSLATED_CALLS and node.args:
        yield from literals(node.args[0])
    elif name in ("ntr", "plural") and len(node.args) >= 2:
        one, many = next(literals(node.args[0]), ""), next(literals(node.args[1]), "")
        if one and many:
            yield (one, many)
    elif name == "Reason":
        for argument in node.args:
            yield from literals(argument)
    elif ERROR_NAME.fullmatch(name):
        first = 1 if name == "Interrupted" else 0
        for place in (first, first + 2):
            yield from literals(node.args[place] if place < len(node.args) else None)
    for keyword in node.keywords:
        wanted = (name == "Field" and keyword.arg == "description") or (
            name in ("Option", "Argument", "Typer") and keyword.arg == "help"
        )
        if wanted or (ERROR_NAME.fullmatch(name) and keyword.arg in ("what", "fix")):
            yield from literals(keyword.value)


def commands_help(tree: ast.Module) -> Iterator[str]:
    """The docstrings of the functions that a module registers as commands in its `add_to`."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if "add_to" in functions:
        named = {node.id for node in ast.walk(functions["add_to"]) if isinstance(node, ast.Name)}
        yield from (doc for name, node in functions.items() if name in named and (doc := ast.get_docstring(node)))


def extracted() -> list[Message]:
    """Every message of the package, once, in the order of the files."""
    found: dict[Message, None] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
            found.update(dict.fromkeys(messages_of_call(call)))
        if file.parent.name == "cli":
            found.update(dict.fromkeys(commands_help(tree)))
    for file in sorted(SOURCE.rglob("*.jinja")):
        if file.parent.name != "templates":
            text = file.read_text(encoding="utf-8")
            found.update(dict.fromkeys(re.findall(r"""\bt\("((?:[^"\\]|\\.)*)\"""", text)))
    return list(found)


def placeholders(text: str) -> set[str]:
    """The named placeholders of a message; none where it is not a format string."""
    try:
        return {name for _, name, _, _ in Formatter().parse(text) if name and name.isidentifier()}
    except ValueError:
        return set()


def updated(file: Path) -> Catalog:
    """The catalog with today's messages: known translations kept, unused ones dropped."""
    with file.open("rb") as handle:
        old = read_po(handle)
    new = Catalog(old.locale, project="Sartor", charset="utf-8", header_comment=old.header_comment, fuzzy=False)
    new.creation_date = new.revision_date = DATE
    for message in extracted():
        key = message if isinstance(message, str) else message[0]
        known = old.get(key)
        new.add(message, known.string if known else None)
    return new


def po_bytes(catalog: Catalog) -> bytes:
    buffer = io.BytesIO()
    write_po(buffer, catalog, width=120, omit_header=False, sort_output=True, no_location=True)
    return buffer.getvalue()


def mo_bytes(catalog: Catalog) -> bytes:
    buffer = io.BytesIO()
    write_mo(buffer, catalog)
    return buffer.getvalue()


def faults(file: Path) -> list[str]:
    """What is wrong with a catalog, one line each."""
    catalog = updated(file)
    found = [] if po_bytes(catalog) == file.read_bytes() else [f"{file}: stale; run `make messages`"]
    compiled = file.with_suffix(".mo")
    if not compiled.exists() or compiled.read_bytes() != mo_bytes(catalog):
        found.append(f"{compiled}: stale; run `make messages`")
    for message in catalog:
        strings = message.string if isinstance(message.string, (list, tuple)) else (message.string,)
        if not message.id:
            continue
        ids = message.id if isinstance(message.id, (list, tuple)) else (message.id,)
        if not all(strings):
            found.append(f"{file}: not translated: {ids[0]!r}")
        elif any(placeholders(text) != placeholders(ids[-1]) for text in strings):
            found.append(f"{file}: unknown placeholder in the translation of {ids[0]!r}")
    return found


def main(arguments: list[str]) -> int:
    catalogs = sorted(LOCALE.glob("*/LC_MESSAGES/sartor.po"))
    if arguments == ["update"]:
        for file in catalogs:
            catalog = updated(file)
            file.write_bytes(po_bytes(catalog))
            file.with_suffix(".mo").write_bytes(mo_bytes(catalog))
            print(f"{file}: {len(catalog)} messages, {sum(not m.string for m in catalog if m.id)} not translated")
        return 0
    if arguments == ["check"]:
        found = [fault for file in catalogs for fault in faults(file)]
        print("\n".join(found[:50]) or f"{len(catalogs)} catalogs are complete")
        return 1 if found else 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
