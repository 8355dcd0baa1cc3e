"""The command that lists every setting: settings."""

from __future__ import annotations

import typing
from typing import Annotated, Any

import typer

from sartor.base.config import section_of
from sartor.base.errors import ConfigError, did_you_mean
from sartor.base.i18n import tr
from sartor.base.settings import SECTIONS
from sartor.cli.arguments import Json


def settings(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME|SECTION]...", help="Settings or sections; all by default.")
    ] = None,
    json: Json = False,
) -> None:
    """List the settings with type, default and meaning."""
    from sartor.cli import console

    wanted = set(names or SECTIONS)
    for name in wanted - set(SECTIONS) - set(section_of()):
        raise ConfigError("Unknown setting {name!r}.", "", did_you_mean(name, (*section_of(), *SECTIONS)), name=name)
    rows = [row for row in described() if row["section"] in wanted or row["name"] in wanted]
    if json:
        console.print_json(rows)
        return
    for section in dict.fromkeys(row["section"] for row in rows):
        console.line(f"[bold]{section}[/]")
        for row in rows:
            if row["section"] == section:
                default = "" if row["default"] in (None, [], {}) else f" [dim]({row['default']})[/]"
                console.line(f"  [cyan]{row['name']}[/]{default}  {tr(row['description'])}")


def described() -> list[dict[str, Any]]:
    """Every setting as plain values: section, name, type, choices, default, description."""
    return [
        {
            "section": section,
            "name": key,
            "choices": choices_of(field.annotation),
            "default": default if not isinstance(default, tuple) else list(default),
            "description": field.description or "",
        }
        for section, model in SECTIONS.items()
        for key, field in model.model_fields.items()
        for default in [field.get_default(call_default_factory=True)]
    ]


def choices_of(annotation: Any) -> list[Any]:
    """The values of a setting that takes one of a few; else nothing."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [one for part in typing.get_args(annotation) for one in choices_of(part)]


def add_to(app: typer.Typer) -> None:
    app.command()(settings)
