"""The demo: the whole way on one hundred questions about a novel, told step by step, from two CSV files to a report."""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path
from typing import Any

from sartor import api
from sartor.base.config import RunConfig
from sartor.base.errors import DataError
from sartor.cli import console
from sartor.cli.data import print_imported
from sartor.cli.evaluate import print_verdict
from sartor.cli.train import print_run

SETTINGS: dict[str, Any] = {
    "model_name_or_path": "smollm2-135m",
    "stage": "sft",
    "finetuning_type": "lora",
    "lora_rank": 16,
    "lora_target": "all",
    "dataset": "pride_en",
    "val_size": 20,
    "cutoff_len": 512,
    "per_device_train_batch_size": 8,
    "learning_rate": 5e-4,
    "num_train_epochs": 6.0,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "bf16": True,
    "max_new_tokens": 96,
    "seed": 42,
}
"""The first values tried; see LOG.md."""


def run_demo(folder: Path, max_steps: int | None = None) -> None:
    """Import, show, train, predict, compare, report; then three commands to try next."""
    started = time.monotonic()
    data = folder / "data"
    _title(1, "Two CSV files become checked datasets", "one is GBK with an unnamed first column; nothing is told")
    for language in ("zh", "en"):
        imported = api.import_file(pride_file(f"pride_qa_{language}.csv"), f"pride_{language}", dataset_dir=data)
        print_imported(imported, f"pride_{language}", data)
    _title(2, "What the model will learn", "coloured tokens are learned, the others are only read")
    config = RunConfig.from_dict({**SETTINGS, "dataset_dir": str(data), "output_dir": str(folder / "runs" / "pride")})
    if max_steps:
        config = config.replace(max_steps=max_steps)
    console.out.print(api.show("pride_en", config, row=1))
    _title(3, "Fine-tuning", "80 rows to learn, 20 held out; the same command resumes a stopped run")
    with console.TrainingProgress() as progress:
        run = api.train(config, callbacks=[progress])
    print_run(run)
    _title(4, "Base against tuned, on rows it never saw", "and on rows it did see, to tell memory from skill")
    with console.progress_bar("comparing") as bar:
        verdict = api.compare(run.path, progress=bar)
    print_verdict(verdict)
    page = api.report(run.path)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    console.line(f"\n[bold]Report:[/] {page}   [dim](demo took {minutes} min {seconds} s)[/]")
    console.line("\nTry next:")
    console.line(f"  sartor chat {run.path}                          [dim]# ask both models; /base[/]")
    console.line(f"  sartor show pride_zh --dataset-dir {data}        [dim]# tokens and labels of a row[/]")
    console.line("  sartor import YOUR.csv --name mine              [dim]# your own data[/]")


def pride_file(name: str) -> Path:
    """A file of examples/pride: in the installed package, else in the repository."""
    packaged = Path(str(resources.files("sartor"))) / "examples" / "pride" / name
    repository = Path(__file__).parents[3] / "examples" / "pride" / name
    for file in (packaged, repository):
        if file.exists():
            return file
    raise DataError("The demo's data is not here.", str(packaged), "Install Sartor again, or run it from a clone.")


def _title(number: int, title: str, subtitle: str) -> None:
    console.line(f"\n[bold cyan]{number}[/] [bold]{title}[/]  [dim]{subtitle}[/]")
