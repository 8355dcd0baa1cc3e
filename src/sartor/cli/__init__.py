"""The command line: parses arguments, calls `sartor.api`, and prints. Exit codes are 0, 1, 2 and 128 + signal."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from sartor import __version__
from sartor.base.errors import SartorError
from sartor.base.files import system_errors
from sartor.base.process import limit_thread_spinning
from sartor.cli.arguments import settings_as_words, translate_help

app = typer.Typer(
    name="sartor",
    help="Fine-tune a language model on your own data, and measure whether it got better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for group in ("start", "data", "generate", "train", "evaluate", "export", "serve", "web", "settings"):
    import_module(f"sartor.cli.{group}").add_to(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sartor {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks."),
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Options before the command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit. Errors are three lines, unless `--debug` is the first argument."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    limit_thread_spinning()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character shows its escape
            stream.reconfigure(errors="backslashreplace")
    command = typer.main.get_command(app)
    translate_help(command)
    try:
        with system_errors():
            command(args=settings_as_words(command, words), prog_name="sartor")
    except SartorError as error:
        if words[:1] == ["--debug"]:
            raise
        from sartor.cli.console import print_error

        print_error(error)
        sys.exit(error.exit_code)
