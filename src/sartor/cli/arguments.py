"""Arguments that several commands share: settings as YAML and key=value, the dataset folder, machine output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.base.config import RunConfig, read_config

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE.yaml] [KEY=VALUE]...", help="A settings file and settings over it.", show_default=False
    ),
]
DatasetDir = Annotated[Path, typer.Option("--dataset-dir", help="The folder that holds dataset_info.json.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for machines.")]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let the model's own Python code run; only this option can.")
]

AllowOutside = Annotated[bool, typer.Option("--allow-outside", help="Let file_name leave the dataset folder.")]
AllowScripts = Annotated[bool, typer.Option("--allow-scripts", help="Let datasets run their own code.")]
AllowNetwork = Annotated[bool, typer.Option("--allow-network", help="Fetch cloud_file_name.")]


def config_of(words: list[str] | None, **settings: object) -> RunConfig:
    """Settings from command-line words: at most one YAML file, first, then key=value.

    Raises: ConfigError for what is neither, and for bad settings.
    """
    words = list(words or ())
    file = Path(words.pop(0)) if words and "=" not in words[0] else None
    return read_config(file, words, **settings)
