"""The command that lists the settings: settings."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sartor.base.errors import ConfigError, did_you_mean
from sartor.base.i18n import Text, tr
from sartor.base.settings import SECTIONS
from sartor.cli.arguments import Json


def settings(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One setting.", show_default=False)] = None,
    section: Annotated[str | None, typer.Option("--section", help="Only the settings of this section.")] = None,
    json: Json = False,
) -> None:
    """List the settings with type, default and description."""
    from sartor.cli import console

    rows = _chosen(_all_settings(), name, section)
    if json:
        console.print_json(rows)
        return
    from rich.markup import escape

    for row in rows:
        value = f"{row['type']} = {row['default']!r}"
        console.line(f"[bold]{row['name']}[/]  [dim]{escape(value)}  ({row['section']})[/]")
        console.line(f"  {escape(Text(row['description']).render())}")


def _all_settings() -> list[dict[str, Any]]:
    """Name, section, type, default and English description of every setting, in the order of the sections."""
    return [
        {
            "name": key,
            "section": name,
            "type": _type_name(schema),
            "default": section.model_fields[key].get_default(call_default_factory=True),
            "description": section.model_fields[key].description or "",
        }
        for name, section in SECTIONS.items()
        for key, schema in section.model_json_schema()["properties"].items()
    ]


def _chosen(rows: list[dict[str, Any]], name: str | None, section: str | None) -> list[dict[str, Any]]:
    """Raises: ConfigError for an unknown setting or section."""
    if section is not None and section not in SECTIONS:
        fix = did_you_mean(section, SECTIONS) or tr("Available: {names}.", names=", ".join(SECTIONS))
        raise ConfigError("Unknown section {section!r}.", "--section", fix, section=section)
    rows = [row for row in rows if section in (None, row["section"])]
    if name is None:
        return rows
    found = [row for row in rows if row["name"] == name]
    if not found:
        raise ConfigError("Unknown setting {name!r}.", "", did_you_mean(name, [row["name"] for row in rows]), name=name)
    return found


def _type_name(schema: dict[str, Any]) -> str:
    """A JSON schema in short: `integer`, `4 | 8`, `list of string`."""
    if "anyOf" in schema:
        return " | ".join(_type_name(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_type_name(items)}"
    return str(schema.get("type", "any"))


def add_to(app: typer.Typer) -> None:
    app.command()(settings)
