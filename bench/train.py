"""Training speed beside LLaMA-Factory 0.9.5 and TRL 1.16.0: same model, rows, LoRA, global batch, steps; one run.

    python bench/train.py [--rounds 2] [--epochs 2] [--rows 80] [--trl-tuned]

Each tool trains in its own process, one after the other, round by round (nothing else may run meanwhile). Equal work is
proved before a speed is printed: label tokens of an epoch (LLaMA-Factory also learns the line break after each
answer), mean training loss, and the loss of each tuned adapter on the same held-out rows, measured by one engine.
Useful tokens are the rows' own, without padding; seconds are each tool's own `train_runtime` (no loading).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rivals

ROOT = Path(__file__).parents[1]
PRIDE = ROOT / "examples" / "pride" / "pride_qa_en.csv"
SETTINGS: dict[str, Any] = {
    "lora_rank": 8,
    "learning_rate": 3e-4,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "lr_scheduler_type": "cosine",
    "cutoff_len": 512,
}
SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class Work:
    """What all tools are given."""

    folder: Path
    model: str
    learned: list[dict[str, str]]
    held_out: list[dict[str, str]]
    epochs: float


@dataclass(frozen=True)
class Trained:
    """What one process did."""

    tool: str
    seconds: float
    loss: float
    adapter: Path
    wall: float
    peak_bytes: int


def prepare(folder: Path, rows: int, epochs: float) -> Work:
    """The pairs, split once; a registry that Sartor and LLaMA-Factory both read."""
    import csv

    from sartor.model.locate import resolve_model

    with PRIDE.open(encoding="utf-8", newline="") as file:
        pairs = [
            {"instruction": r["question"], "input": "", "output": r["answer"], "system": SYSTEM}
            for r in csv.DictReader(file)
        ]
    data = folder / "data"
    data.mkdir(parents=True)
    learned, held_out = pairs[:rows], pairs[rows:]
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    info = {}
    for name, part in (("learned", learned), ("held_out", held_out)):
        (data / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
        info[name] = {"file_name": f"{name}.json", "columns": columns}
    (data / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return Work(folder, resolve_model("smollm2-135m"), learned, held_out, epochs)


def train_sartor(work: Work, number: int) -> Trained:
    """`sartor train` in a process of its own."""
    out = work.folder / f"sartor-{number}"
    settings = {
        **SETTINGS,
        "model_name_or_path": work.model,
        "dataset": "learned",
        "dataset_dir": work.folder / "data",
        "template": "chatml",
        "num_train_epochs": work.epochs,
        "output_dir": out,
        "plot_loss": "false",
        "save_strategy": "no",
        "bf16": "true",
    }
    command = [sys.executable, "-m", "sartor", "train", *(f"{k}={v}" for k, v in settings.items())]
    done = rivals.run(command, work.folder)
    results = json.loads((out / "train_results.json").read_text(encoding="utf-8"))
    return Trained("sartor", results["train_runtime"], results["train_loss"], out, done.seconds, done.peak_bytes)


def train_llama_factory(work: Work, number: int, environment: Path) -> Trained:
    """`llamafactory-cli train` with the same settings, else its defaults (recomputation on)."""
    out = work.folder / f"llama-factory-{number}"
    settings = {
        **SETTINGS,
        "model_name_or_path": work.model,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": "all",
        "dataset": "learned",
        "dataset_dir": str(work.folder / "data"),
        "template": "chatml",
        "num_train_epochs": work.epochs,
        "output_dir": str(out),
        "logging_steps": 1,
        "save_strategy": "no",
        "overwrite_output_dir": True,
        "report_to": "none",
        "bf16": True,
        "use_cpu": True,
    }
    file = work.folder / f"llama-factory-{number}.yaml"
    file.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    command = [str(environment / "bin" / "llamafactory-cli"), "train", str(file)]
    done = rivals.run(command, work.folder, rivals.llama_factory_environment(environment))
    results = json.loads((out / "train_results.json").read_text(encoding="utf-8"))
    return Trained("llama-factory", results["train_runtime"], results["train_loss"], out, done.seconds, done.peak_bytes)


def train_trl(work: Work, number: int, tuned: bool) -> Trained:
    """TRL's SFTTrainer in a process of its own: its defaults, or packed and without recomputation."""
    name = "trl-tuned" if tuned else "trl"
    out = work.folder / f"{name}-{number}"
    job = {
        "model": work.model,
        "data": str(work.folder / "data" / "learned.json"),
        "out": str(out),
        "epochs": work.epochs,
        "tuned": tuned,
        "system": SYSTEM,
    }
    done = rivals.run([sys.executable, str(Path(__file__).with_name("train_trl.py")), json.dumps(job)], work.folder)
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return Trained(name, results["train_runtime"], results["train_loss"], out, done.seconds, done.peak_bytes)


def held_out_loss(work: Work, adapter: Path) -> float:
    """Nats per answer token of the held-out rows under one adapter, by one engine for all tools."""
    from sartor.data.load import load
    from sartor.inference.engine import Engine

    engine = Engine.load(work.model, adapter, template="chatml")
    examples = load("held_out", work.folder / "data").examples
    rows = engine.encoder.encode_all(examples).encoded
    losses = engine.losses(rows)  # type: ignore[arg-type]
    return sum(loss.nll_sum for loss in losses) / sum(loss.label_tokens for loss in losses)


def count_tokens(work: Work) -> tuple[int, int]:
    """(tokens, label tokens) of one epoch, without padding."""
    from sartor.data.load import load
    from sartor.model.load import load_tokenizer
    from sartor.prompt.encode import Encoder
    from sartor.prompt.template import Template

    tokenizer = load_tokenizer(work.model)
    rows = (
        Encoder(tokenizer, Template.from_tokenizer(tokenizer, "chatml"))
        .encode_all(load("learned", work.folder / "data").examples)
        .encoded
    )
    return sum(len(row) for row in rows), sum(row.label_tokens for row in rows)  # type: ignore[arg-type, union-attr]


def roof() -> float:
    """bf16 matrix products a second, in FLOP/s, at shapes where they are fast."""
    import torch

    a, b = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        a @ b
        best = max(best, 2 * 2048**3 / (time.perf_counter() - started))
    return best


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--epochs", type=float, default=2)
    options.add_argument("--rows", type=int, default=80)
    options.add_argument("--trl-tuned", action="store_true", help="TRL packed and without recomputation, too")
    chosen = options.parse_args()
    environment = rivals.llama_factory()
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(Path(folder), chosen.rows, chosen.epochs)
        done: list[Trained] = []
        for number in range(chosen.rounds):
            done.append(train_sartor(work, number))
            if environment:
                done.append(train_llama_factory(work, number, environment))
            done.append(train_trl(work, number, tuned=False))
            if chosen.trl_tuned:
                done.append(train_trl(work, number, tuned=True))
        show(work, done)


def show(work: Work, done: list[Trained]) -> None:
    """Equal work first, then speeds."""
    tokens, labels = count_tokens(work)
    total = tokens * work.epochs
    print(f"{len(work.learned)} rows, {tokens} tokens, {labels} label tokens an epoch; {work.epochs:g} epochs")
    tools = list(dict.fromkeys(trained.tool for trained in done))
    losses = {tool: statistics.fmean(t.loss for t in done if t.tool == tool) for tool in tools}
    held_out = {tool: held_out_loss(work, next(t.adapter for t in done if t.tool == tool)) for tool in tools}
    for tool in tools:
        off = (held_out[tool] / held_out["sartor"] - 1, losses[tool] / losses["sartor"] - 1)
        print(
            f"  {tool:<14} held-out loss {held_out[tool]:.4f} ({off[0]:+.2%})"
            f"   training loss {losses[tool]:.4f} ({off[1]:+.2%})"
        )
    equal = [t for t in tools if abs(held_out[t] / held_out["sartor"] - 1) <= 0.01]
    print(f"equal work (held-out loss within 1 %): {', '.join(equal)}")
    flops, parameters = roof(), 134.5e6
    ours = statistics.median(t.seconds for t in done if t.tool == "sartor")
    print(
        f"\n{'tool':<14} {'tokens/s':>9} {'seconds':>8} {'sartor is':>10}"
        f" {'of roof':>8} {'peak GB':>8} {'process s':>10}"
    )
    for tool in tools:
        mine = [t for t in done if t.tool == tool]
        seconds = statistics.median(t.seconds for t in mine)
        share = 4 * parameters * total / seconds / flops
        print(
            f"{tool:<14} {total / seconds:>9.0f} {seconds:>8.1f} {seconds / ours:>9.2f}x {share:>8.1%} "
            f"{max(t.peak_bytes for t in mine) / 1e9:>8.2f} {statistics.median(t.wall for t in mine):>10.1f}"
        )
    print(
        f"roof: {flops / 1e9:.0f} GFLOP/s in bf16; all seconds: " + ", ".join(f"{t.tool} {t.seconds:.1f}" for t in done)
    )


if __name__ == "__main__":
    main()
