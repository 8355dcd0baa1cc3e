"""Sartor's training steps: by row length, by number of rows, one optimization at a time, and the estimate's error.

    python bench/steps.py [--only lengths|rows|tricks|estimate]

SmolLM2-135M in bf16, LoRA of rank 8 on all linear layers, each measurement in a process of its own (nothing else may
run meanwhile). Tokens a second are useful ones over the seconds of the steps after the first two; "of the roof" is
4 · parameters · tokens/s over the matrix products a second measured in the same run. `tricks` begins with PEFT's and
transformers' own code in our loop and adds one of ours at a time; the losses of all lines must agree.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rivals
from train import PRIDE, roof

PARAMETERS = 134.5e6
TRICKS = {
    "head": "fused linear cross-entropy on label positions",
    "lora": "fused LoRA linear layers",
    "attention": "short attention",
    "norms": "fused RMS norms",
    "products": "wide matrix products in parts",
    "allocator": "fixed allocator threshold",
}
TRAIN = """
import json, sys
job = json.loads(sys.argv[1])
from sartor.base.process import limit_thread_spinning
limit_thread_spinning()
import torch
import torch.nn.functional as F
from sartor.model import attention, kernels, load
from sartor.model.head import causal_model
from sartor.training.stages import sft

def unfused_loss(model, batch):
    logits = model(input_ids=batch.ids_BT, position_ids=batch.positions_BT, use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(logits.flatten(0, 1), batch.labels_BT[:, 1:].flatten(), ignore_index=-100, reduction="sum")

off = set(job["off"])
if "head" in off:
    sft.summed_loss = unfused_loss
if "lora" in off:
    kernels.fuse_lora = lambda model: 0
if "norms" in off:
    kernels.fuse_norms = lambda model: 0
if "attention" in off:
    attention.register = lambda: "sdpa"
if "products" in off:
    kernels.SPLIT_ROWS = 1 << 40
if "allocator" in off:
    load.tune_allocator = lambda: None
from sartor import api
api.train(preflight=job["preflight"], **job["settings"])
"""


@dataclass(frozen=True)
class Steps:
    """What one training did."""

    tokens_per_s: float
    loss: float
    peak_bytes: int
    folder: Path


def make_data(folder: Path, name: str, rows: int, tokens: int) -> None:
    """Rows whose answers are longer than `tokens`, made of the demo's words; they are cut to that length."""
    import csv

    with PRIDE.open(encoding="utf-8", newline="") as file:
        words = " ".join(row["answer"] for row in csv.DictReader(file)).split()
    draw = random.Random(tokens)
    made = [
        {"instruction": f"Tell me story {n}.", "output": " ".join(draw.choices(words, k=tokens))} for n in range(rows)
    ]
    (folder / f"{name}.json").write_text(json.dumps(made), encoding="utf-8")
    registry = folder / "dataset_info.json"
    known = json.loads(registry.read_text(encoding="utf-8")) if registry.exists() else {}
    registry.write_text(json.dumps({**known, name: {"file_name": f"{name}.json"}}), encoding="utf-8")


def train(folder: Path, name: str, off: tuple[str, ...] = (), preflight: bool = False, **settings: Any) -> Steps:
    """One training in its own process."""
    out = folder / f"run-{len(list(folder.glob('run-*')))}"
    given = {
        "model_name_or_path": "smollm2-135m",
        "dataset": name,
        "dataset_dir": str(folder),
        "template": "chatml",
        "lora_rank": 8,
        "learning_rate": 3e-4,
        "overlong": "truncate",
        "output_dir": str(out),
        "plot_loss": False,
        "save_strategy": "no",
        "bf16": True,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_steps": 8,
        **settings,
    }
    job = {"settings": given, "off": list(off), "preflight": preflight}
    done = rivals.run([sys.executable, "-c", TRAIN, json.dumps(job)], folder)
    lines = (out / "events.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [event for event in map(json.loads, lines) if event["kind"] == "step"]
    later = steps[2:]
    speed = sum(step["tokens"] for step in later) / sum(step["seconds"] for step in later)
    return Steps(speed, sum(step["loss"] for step in steps) / len(steps), done.peak_bytes, out)


def line(name: str, steps: Steps, flops: float) -> None:
    share = 4 * PARAMETERS * steps.tokens_per_s / flops
    print(
        f"{name:<46} {steps.tokens_per_s:7.0f} tokens/s {share:6.1%} of the roof"
        f" {steps.peak_bytes / 1e9:6.2f} GB  loss {steps.loss:.4f}",
        flush=True,
    )


def lengths(folder: Path, flops: float) -> None:
    """About 2,048 tokens a step, in rows of one length."""
    for tokens in (128, 256, 512, 1024, 2048):
        make_data(folder, f"of{tokens}", 64, tokens)
        rows = max(1, 2048 // tokens)
        done = train(folder, f"of{tokens}", cutoff_len=tokens, per_device_train_batch_size=rows, max_steps=7)
        line(f"rows of {tokens} tokens, {rows} a step", done, flops)


def by_rows(folder: Path, flops: float) -> None:
    """The same steps from more and more rows: a step must not know how many there are."""
    for rows in (100, 1_000, 20_000):
        make_data(folder, f"rows{rows}", rows, 96)
        line(f"{rows:,} rows of 96 tokens", train(folder, f"rows{rows}", cutoff_len=96, max_steps=12), flops)


def tricks(folder: Path, flops: float) -> None:
    """Each line has one more of our operations than the line before."""
    make_data(folder, "tricks", 64, 96)
    off = list(TRICKS)
    line("PEFT's and transformers' own", train(folder, "tricks", tuple(off), cutoff_len=96, max_steps=12), flops)
    for name, text in TRICKS.items():
        off.remove(name)
        line(f"+ {text}", train(folder, "tricks", tuple(off), cutoff_len=96, max_steps=12), flops)


def estimates(folder: Path, flops: float) -> None:
    """What the pre-flight said and what happened: memory within 15 %, time within 25 %."""
    from sartor.training.preflight import prediction_errors

    del flops
    make_data(folder, "short", 200, 96)
    make_data(folder, "long", 64, 512)
    cases: dict[str, dict[str, Any]] = {
        "LoRA, rows of 96 tokens": {"name": "short", "cutoff_len": 96, "max_steps": 40},
        "LoRA, rows of 512 tokens": {"name": "long", "cutoff_len": 512, "max_steps": 10},
        "LoRA, packed": {"name": "short", "cutoff_len": 96, "max_steps": 20, "packing": True},
        "full, rows of 96 tokens": {"name": "short", "cutoff_len": 96, "max_steps": 10, "finetuning_type": "full"},
    }
    for text, settings in cases.items():
        run = train(folder, preflight=True, val_size=0.1, **settings)
        events = (run.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
        said = next(event for event in map(json.loads, events) if event["kind"] == "preflight")
        happened = json.loads((run.folder / "train_results.json").read_text(encoding="utf-8"))
        off = prediction_errors(said, happened)
        print(
            f"{text:<28} {happened['total_seconds']:6.1f} s ({off['seconds']:+.0%})"
            f" {happened['peak_memory_bytes'] / 1e9:5.2f} GB ({off['peak_memory_bytes']:+.0%})",
            flush=True,
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"lengths": lengths, "rows": by_rows, "tricks": tricks, "estimate": estimates}
    options.add_argument("--only", choices=parts, help="one part alone")
    chosen = options.parse_args()
    flops = roof()
    print(f"roof: {flops / 1e9:.0f} GFLOP/s in bf16")
    with tempfile.TemporaryDirectory() as name:
        for part, measure in parts.items():
            if chosen.only in (None, part):
                measure(Path(name), flops)


if __name__ == "__main__":
    main()
