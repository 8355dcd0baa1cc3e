"""What to type next, as commands that work where they are printed."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from rich.markup import escape

from sartor.base.i18n import tr
from sartor.base.rundir import RunDir
from sartor.base.settings import FIRST_TRAINING


def program() -> str:
    """What starts this program here: `sartor` where the shell finds this one, else its path."""
    script = Path(sys.executable).with_name("sartor")
    found = shutil.which("sartor")
    if found and (not script.exists() or Path(found).resolve() == script.resolve()):
        return "sartor"
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m sartor"
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))


def command(*words: object) -> str:
    """A command line of this program, its words quoted where the shell needs it."""
    return " ".join((program(), *(shlex.quote(str(word)) for word in words)))


def print_next(*commands: str) -> None:
    """One line for each command."""
    from sartor.cli import console

    for text in commands:
        console.line(f"  {tr('Next')}: [bold]{escape(text)}[/]")


def after_training(run: RunDir) -> list[str]:
    """Compare; without held-out rows chat, and train again with some."""
    if run.read_json("data.json")["split"]["held_out"]:
        return [command("compare", run.path)]
    again = command("train", run.config, "val_size=0.1", f"output_dir={run.path}-val")
    return [*after_comparing(run), again]


def after_comparing(run: RunDir) -> list[str]:
    """Chat, with a model that answers."""
    from sartor.api.resolve_target import settings_of
    from sartor.training.stages import STAGES

    stage = settings_of(run).method.stage
    return [] if STAGES.get(stage).head == "reward" else [command("chat", run.path)]


def to_train(name: str, words: list[str] | None, dataset_dir: Path | None, model: str | None = None) -> str:
    """Train on a dataset with the settings that it was looked at with, so that it visibly learns; rows are held out."""
    from sartor.api import training_settings

    file, settings = (words[:1], words[1:]) if words and "=" not in words[0] else ([], words or [])
    given = [f"dataset={name}", *([f"model_name_or_path={model}"] if model else []), *settings]
    if dataset_dir:
        given = [word for word in given if not word.startswith("dataset_dir=")] + [f"dataset_dir={dataset_dir}"]
    if not file and not training_settings(None, given).defaults:
        said = {word.partition("=")[0] for word in given}
        advised = () if "max_steps" in said else ("num_train_epochs",)
        given += [
            f"{key}={FIRST_TRAINING[key]:g}" for key in (*advised, "learning_rate", "val_size") if key not in said
        ]
    return command("train", *file, *given)
