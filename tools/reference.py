"""Reference pages drawn from the code: settings, command line, file formats, plug-in contracts, Python API.

python tools/reference.py update   # write docs/reference/*.md
python tools/reference.py check    # fail when a page is not what the code says
"""

from __future__ import annotations

import ast
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ["SARTOR_LANG"] = "en"
PAGES = Path(__file__).parents[1] / "docs" / "reference"
CONTRACTS = (
    ("sartor.data.sources", "Source", "SOURCES"),
    ("sartor.data.formats", "Format", "FORMATS"),
    ("sartor.checks.rules", "Rule", "RULES"),
    ("sartor.training.stages", "Stage", "STAGES"),
    ("sartor.training.optimizers", "OptimizerPlugin", "OPTIMIZERS"),
    ("sartor.evaluation.metrics", "Metric", "METRICS"),
    ("sartor.exporters", "Exporter", "EXPORTERS"),
    ("sartor.inference.backends", "Backend", "BACKENDS"),
)
"""(package, contract, registry) of each extension point."""


def cell(text: object) -> str:
    """Text that keeps a Markdown table whole."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    header = list(header)
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(cell(value) for value in row) + " |"


def type_name(annotation: Any) -> str:
    """A type as people write it: `int`, `list of str`, `"a" or "b"`."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(args[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin is tuple:
        return f"list of {type_name(args[0])}"
    if origin is dict or (origin is not None and "Mapping" in str(origin)):
        return "mapping"
    if args:  # a union
        return " or ".join(type_name(arg) for arg in args if arg is not type(None))
    return getattr(annotation, "__name__", str(annotation))


def default_of(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, (tuple, list)):
        return ", ".join(f"`{one}`" for one in value) or "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else "–"


def choices_of_plugins(metadata: Iterable[Any]) -> str:
    """The names of the plug-ins that a setting chooses from."""
    names = (name for item in metadata if callable(getattr(item, "names", None)) for name in item.names())
    return ", ".join(f"`{name}`" for name in names)


def settings_page() -> Iterator[str]:
    from sartor.base.llamafactory_keys import IGNORED_KEYS, UNSUPPORTED_KEYS
    from sartor.base.settings import SECTIONS

    yield "# Settings"
    yield ""
    yield (
        "One flat YAML file, or `key=value` on the command line, or keyword arguments in Python. Unknown keys are "
        "errors. `sartor settings` prints this page's tables."
    )
    for name, section in SECTIONS.items():
        yield from ("", f"## {name}", "", (inspect.getdoc(section) or "").split("\n\n")[0], "")
        rows = (
            (
                f"`{key}`",
                choices_of_plugins(field.metadata) or type_name(field.annotation),
                default_of(field.get_default(call_default_factory=True)),
                field.description,
            )
            for key, field in section.model_fields.items()
        )
        yield from table(("Setting", "Type", "Default", "Meaning"), rows)
    yield from (
        "",
        "## Keys of LLaMA-Factory without effect",
        "",
        "Accepted, and listed in `plan.json` with the reason.",
        "",
    )
    yield from table(("Key", "Why"), ((f"`{key}`", why) for key, why in IGNORED_KEYS.items()))
    yield from ("", "## Keys that are refused", "", "With what to write instead.", "")
    yield from table(("Key", "Instead"), ((f"`{key}`", what) for key, what in UNSUPPORTED_KEYS.items()))


def command_line_page() -> Iterator[str]:
    import click
    import typer.main

    from sartor.cli import app

    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    yield "# Command line"
    yield ""
    yield "Exit codes: 0 success, 1 bad news or an error, 2 wrong usage, 128 + n stopped by signal n."
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if command.hidden:
            continue
        yield from ("", f"## sartor {name}", "", inspect.cleandoc(command.help or ""), "")
        words = " ".join(["[OPTIONS]", *(metavar_of(p) for p in command.params if p.param_type_name == "argument")])
        yield from ("```", f"sartor {name} {words}", "```", "")
        rows = []
        for parameter in command.params:
            if parameter.name == "help" or getattr(parameter, "hidden", False):
                continue
            flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
            shown = f"`{metavar_of(parameter)}`" if parameter.param_type_name == "argument" else flags
            default = parameter.default if not callable(parameter.default) else None
            rows.append(
                (
                    shown,
                    getattr(parameter, "help", "") or "",
                    default_of(default) if default not in ((), False) else "–",
                )
            )
        if rows:
            yield from table(("Argument", "Meaning", "Default"), rows)


def metavar_of(parameter: Any) -> str:
    """`RUN`, `[KEY=VALUE]...`: how an argument is shown in a usage line."""
    return str(parameter.metavar or parameter.name.upper())


def file_formats_page() -> Iterator[str]:
    from sartor.base.rundir import RunDir
    from sartor.data.dataset_info import KEYS
    from sartor.data.dataset_spec import COLUMNS
    from sartor.data.decompress import COMPRESSED_SUFFIXES
    from sartor.data.formats import FORMATS
    from sartor.data.sources import SOURCES

    yield "# File formats"
    yield from ("", "## Data files", "")
    packed = ", ".join(f"`{suffix}`" for suffix in COMPRESSED_SUFFIXES)
    yield f"Each may be compressed: {packed}."
    yield ""
    rows = ((source.name, ", ".join(f"`{s}`" for s in source.suffixes), summary(source)) for source in SOURCES.all())
    yield from table(("Source", "Suffixes", "Rows"), rows)
    yield from ("", "## dataset_info.json", "", "One entry a dataset, as in LLaMA-Factory.", "")
    names = {
        key: "/".join(t.__name__ for t in (kind if isinstance(kind, tuple) else (kind,))) for key, kind in KEYS.items()
    }
    yield from table(("Key", "Type"), ((f"`{key}`", kind) for key, kind in names.items()))
    yield from ("", "Columns and the column each is read from by default:", "")
    yield from table(("Column", "Default"), ((f"`{key}`", default_of(value)) for key, value in COLUMNS.items()))
    yield from ("", "## Row formats", "")
    for one in FORMATS.all():
        tags = ", ".join(f"`{key}: {value}`" for key, value in one.tags.items())
        yield from ("", f"**{one.name}**: {summary(one)}" + (f" Tags by default: {tags}." if tags else ""))
    yield from ("", "## A run's folder", "", inspect.getdoc(RunDir) or "", "")
    parts = ((name, getattr(RunDir, name)) for name in dir(RunDir) if isinstance(getattr(RunDir, name), property))
    rows2 = (
        (f"`{part.fget(RunDir(Path('RUN')))}`", inspect.getdoc(part.fget) or "")
        for name, part in parts
        if name != "name"
    )
    yield from table(("File", "Content"), rows2)


def summary(value: object) -> str:
    """The first sentence of what defines a plug-in."""
    module = inspect.getdoc(sys.modules[type(value).__module__]) or ""
    own = inspect.getdoc(type(value)) if type(value).__doc__ else None
    return (own or module).split("\n")[0]


def plugins_page() -> Iterator[str]:
    import importlib

    from sartor.base import registry

    yield "# Plug-ins"
    yield from ("", (inspect.getdoc(registry) or "").split("\n\n", 1)[1], "")
    for package, contract, listed in CONTRACTS:
        module = importlib.import_module(package)
        kind, plugins = getattr(module, contract), getattr(module, listed)
        yield from ("", f"## {contract}", "", f"`{package}.{contract}`, entry-point group `{plugins.group}`.", "")
        yield inspect.getdoc(kind) or ""
        yield ""
        rows: list[tuple[str, str]] = [
            (f"`{name}`", doc) for name, doc in attribute_docs(kind).items() if not name.startswith("_")
        ]
        for name, member in vars(kind).items():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if name.startswith("_") or not inspect.isfunction(function):
                continue
            shown = name if isinstance(member, property) else f"{name}{signature(function)}"
            required = " (required)" if getattr(function, "__isabstractmethod__", False) else ""
            rows.append((f"`{shown}`{required}", (inspect.getdoc(function) or "").split("\n\n")[0]))
        yield from table(("Member", "What it is"), rows)
        yield from ("", "Built in: " + ", ".join(f"`{name}`" for name in plugins.names()) + ".")


def attribute_docs(kind: type) -> dict[str, str]:
    """The attributes of a class, in order, with the string that follows each as its documentation."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    found: dict[str, str] = {}
    for node, after in zip(body, [*body[1:], None]):
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name):
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            found[target.id] = inspect.cleandoc(str(after.value.value)) if documented else ""
    return found


def signature(function: Callable[..., Any]) -> str:
    """As written, without `self`."""
    found = inspect.signature(function)
    parameters = [p for p in found.parameters.values() if p.name not in ("self", "cls")]
    return str(found.replace(parameters=parameters)).replace("'", "")


def python_api_page() -> Iterator[str]:
    import sartor

    yield "# Python API"
    yield from ("", "```python", "import sartor", "```")
    for name in sartor.__all__:
        value = getattr(sartor, name)
        shown = signature(value) if inspect.isfunction(value) else ""
        yield from ("", f"## {name}", "")
        if shown:
            yield from ("```python", f"sartor.{name}{shown}", "```", "")
        alias = not isinstance(value, type) and not callable(value)
        members = ", ".join(f"`{one.__name__}`" for one in typing.get_args(value))
        doc = f"One of {members}." if alias else inspect.getdoc(value) or ""
        yield from with_fenced_examples(doc if not doc.startswith(f"{name}(") else "")


def with_fenced_examples(doc: str) -> Iterator[str]:
    """A docstring as Markdown: doctest lines in a code block."""
    inside = False
    for line in doc.splitlines():
        code = line.strip().startswith((">>>", "...")) or (inside and line.strip() != "" and line.startswith("    "))
        if code != inside:
            yield "```" if inside else "```pycon"
            inside = code
        yield line.strip() if code else line
    if inside:
        yield "```"


WRITERS: dict[str, Callable[[], Iterator[str]]] = {
    "settings.md": settings_page,
    "command-line.md": command_line_page,
    "file-formats.md": file_formats_page,
    "plugins.md": plugins_page,
    "python-api.md": python_api_page,
}
NOTE = "<!-- Written by tools/reference.py from the code; `make reference` rewrites it. -->"


def content(name: str) -> str:
    return "\n".join((NOTE, *WRITERS[name]())).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    if arguments == ["update"]:
        PAGES.mkdir(parents=True, exist_ok=True)
        for name in WRITERS:
            (PAGES / name).write_text(content(name), encoding="utf-8")
        return 0
    if arguments == ["check"]:
        stale = [
            n for n in WRITERS if not (PAGES / n).exists() or (PAGES / n).read_text(encoding="utf-8") != content(n)
        ]
        print(
            "\n".join(f"docs/reference/{name}: stale; run `make reference`" for name in stale) or "reference is current"
        )
        return 1 if stale else 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
