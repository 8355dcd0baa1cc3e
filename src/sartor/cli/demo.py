"""The demo: from two CSV files with a hundred questions about a novel to a report, step by step."""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path
from typing import Any

from rich.markup import escape

from sartor import api
from sartor.base.config import RunConfig
from sartor.base.errors import DataError
from sartor.base.i18n import Text, tr
from sartor.base.settings import FIRST_TRAINING
from sartor.cli import console, next_step
from sartor.cli.data import print_imported
from sartor.cli.evaluate import print_verdict
from sartor.cli.train import print_run

SETTINGS: dict[str, Any] = {
    **FIRST_TRAINING,
    "lora_target": "all",
    "dataset": "pride_en",
    "val_size": 20,
    "cutoff_len": 512,
    "num_train_epochs": 6.0,
    "bf16": True,
    "max_new_tokens": 96,
    "seed": 42,
}
"""The first values that were tried; see LOG.md."""


def run_demo(folder: Path, max_steps: int | None = None) -> None:
    """Import, show, train, predict, compare, report; then commands to try next."""
    started = time.monotonic()
    data = folder / "data"
    _title(
        1,
        tr("Two CSV files become validated datasets"),
        tr("one is GBK with an unnamed first column; both are detected"),
    )
    for language in ("zh", "en"):
        file = pride_file(f"pride_qa_{language}.csv")
        imported = api.import_file(file, f"pride_{language}", dataset_dir=data, existing="overwrite")
        print_imported(imported, data)
    _title(2, tr("What the model is trained on"), tr("highlighted tokens are trained on; the rest is context"))
    config = RunConfig.from_dict({**SETTINGS, "dataset_dir": str(data), "output_dir": str(folder / "runs" / "pride")})
    if max_steps:
        config = config.replace(max_steps=max_steps)
    console.out.print(api.show("pride_en", config, row=1))
    _title(3, tr("Fine-tuning"), tr("80 training rows, 20 held out; the same command resumes a stopped run"))
    with console.TrainingProgress() as progress:
        run = api.train(config, callbacks=[progress])
    print_run(run)
    _title(4, tr("Base and tuned on held-out rows"), tr("and on training rows, to tell memory from skill"))
    with console.progress_bar(tr("comparing")) as bar:
        verdict = api.compare(run.path, progress=bar)
    print_verdict(verdict)
    page = api.report(run.path)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    duration = tr("the demo took {minutes} min {seconds} s", minutes=minutes, seconds=seconds)
    console.line(f"\n{console.bold(tr('Report:'))} {escape(str(page))}   [dim]({duration})[/]")
    console.line(f"\n{tr('Try next:')}")
    for line, comment in (
        (next_step.command("chat", run.path), tr("ask both models; /base asks the base model")),
        (next_step.command("show", "pride_zh", "--dataset-dir", data), tr("tokens and labels of a row")),
        (next_step.command("import", "--help"), tr("your own data: sartor import FILE --name NAME")),
    ):
        console.line(f"  {escape(line):<50} [dim]# {console.plain(comment)}[/]")


def pride_file(name: str) -> Path:
    """A file of examples/pride: from the installed package, else from the repository."""
    packaged = Path(str(resources.files("sartor"))) / "examples" / "pride" / name
    repository = Path(__file__).parents[3] / "examples" / "pride" / name
    for file in (packaged, repository):
        if file.exists():
            return file
    raise DataError("The demo's data is missing.", str(packaged), "Reinstall Sartor, or run it from a clone.")


def _title(number: int, title: Text, subtitle: Text) -> None:
    console.line(f"\n[bold cyan]{number}[/] {console.bold(title)}  [dim]{console.plain(subtitle)}[/]")
