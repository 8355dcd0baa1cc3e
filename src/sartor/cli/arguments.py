"""Arguments that several commands share: settings, the dataset folder, JSON output, and the permissions."""

from __future__ import annotations

import functools
import gettext
import inspect
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer._click import Command
from typer.core import TyperCommand, TyperGroup

from sartor.base.config import RunConfig, read_config, section_of
from sartor.base.i18n import DOMAIN, LOCALE_DIR, Text, language, tr
from sartor.base.llamafactory_keys import IGNORED_KEYS, UNSUPPORTED_KEYS
from sartor.base.permissions import NOTHING_ALLOWED, Permissions

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE.yaml] [KEY=VALUE]...", help="A settings file, and settings that override it.", show_default=False
    ),
]
DatasetDir = Annotated[Path, typer.Option("--dataset-dir", help="The folder that holds dataset_info.json.")]
DatasetDirSetting = Annotated[
    Path | None,
    typer.Option("--dataset-dir", help="The setting `dataset_dir`: the folder that holds dataset_info.json."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

PERMISSION_OPTIONS: dict[str, Any] = {
    "allow_outside": typer.Option("--allow-outside", help="Allow data files outside the dataset folder."),
    "allow_scripts": typer.Option("--allow-scripts", help="Allow datasets to run their own loading scripts."),
    "allow_network": typer.Option("--allow-network", help="Allow downloads that a dataset entry names."),
    "trust_remote_code": typer.Option("--trust-remote-code", help="Allow the model's own Python code to run."),
    "allow_upload": typer.Option(
        "--allow-upload", metavar="HOST", help="Allow sending data to this host, which the settings name; repeatable."
    ),
}
"""One option for each field of `Permissions`."""


def with_permissions(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the permission options; it gets them as one argument, `permissions`."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        given = {name: options.pop(name) for name in PERMISSION_OPTIONS}
        given["allow_upload"] = tuple(given["allow_upload"] or ())
        command(*args, permissions=Permissions(**given), **options)

    # Typer reads signature and annotations: without __wrapped__ it cannot reach the original ones.
    del run.__wrapped__
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "permissions"]
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
        for name, option in PERMISSION_OPTIONS.items()
        for kind, default in ((list[str] | None, None) if name == "allow_upload" else (bool, False),)
    ]
    run.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *flags)}
    return run


def settings_file(words: list[str] | None) -> tuple[Path | None, list[str]]:
    """Split command-line words into a settings file, if the first word is one, and the KEY=VALUE words."""
    words = list(words or ())
    file = Path(words.pop(0)) if words and "=" not in words[0] else None
    return file, words


def settings_as_words(group: Command, words: list[str]) -> list[str]:
    """Command-line words with settings written as options, `--key value` or `--key=value`, turned into `key=value`.

    LLaMA-Factory's command line takes them so; a flag without a value is true. The command's own options stay, and so
    do unknown ones without `_`.
    """
    at = next((number for number, word in enumerate(words) if not word.startswith("-")), len(words))
    command = group.commands.get(words[at]) if isinstance(group, TyperGroup) and at < len(words) else None
    if command is None or all(parameter.name != "settings" for parameter in command.params):
        return words
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    done, rest = words[: at + 1], words[at + 1 :]
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not _is_setting(name, own):
            done.append(word)
            if word in own and _takes_value(command, word) and rest:
                done.append(rest.pop(0))
            continue
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        done.append(f"{name.removeprefix('--').replace('-', '_')}={value}")
    return done


def _is_setting(name: str, own: Collection[str]) -> bool:
    if not name.startswith("--") or name in own:
        return False
    key = name.removeprefix("--").replace("-", "_")
    return "_" in name or key in section_of() or key in IGNORED_KEYS or key in UNSUPPORTED_KEYS


def _takes_value(command: Command, option: str) -> bool:
    return any(option in parameter.opts and not getattr(parameter, "is_flag", False) for parameter in command.params)


def config_of(words: list[str] | None, permissions: Permissions = NOTHING_ALLOWED, **settings: object) -> RunConfig:
    """Settings from command-line words: at most one YAML file, first, then KEY=VALUE.

    Raises: ConfigError for anything else, and for bad settings.
    """
    file, overrides = settings_file(words)
    return read_config(file, overrides, **settings).allowing(permissions)


TYPER_TEXTS = (
    tr("Arguments"),
    tr("Options"),
    tr("Commands"),
    tr("Error"),
    tr("[default: {}]"),
    tr("[required]"),
    tr("required"),
    tr("Missing command."),
    tr("No such command {name!r}."),
    tr("Aborted."),
    tr("Try [blue]'{command_path} {help_option}'[/] for help."),
    tr("Show this message and exit."),
    tr("Install completion for the current shell."),
    tr("Show completion for the current shell, to copy it or customize the installation."),
)
"""What Typer itself says in help and errors; it looks most of it up with `gettext`, as our catalogs are."""


def translate_help(command: Command) -> None:
    """Show help in the reader's language: Typer's own words, and the texts of a command and all that is in it."""
    if language() == "en":
        gettext.textdomain("messages")  # its default
        return
    os.environ["LANGUAGE"] = language()  # what the standard library's gettext asks first
    gettext.bindtextdomain(DOMAIN, LOCALE_DIR)
    gettext.textdomain(DOMAIN)
    for part in _commands(command):
        part.help, part.short_help = _translated(part.help), _translated(part.short_help)
        if option := part.get_help_option(typer.Context(part)):
            option.help = _translated(option.help)
        for parameter in part.params:
            if isinstance(help := getattr(parameter, "help", None), str):
                setattr(parameter, "help", _translated(help))  # noqa: B010


def _commands(command: Command) -> Iterator[TyperCommand | TyperGroup]:
    if isinstance(command, (TyperCommand, TyperGroup)):
        yield command
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            yield from _commands(inner)


def _translated(text: str | None) -> str | None:
    return Text(text).render() if text else text
