"""LoRA tuning on one GPU at the shapes of Qwen3: Sartor's own loop beside transformers' Trainer with its defaults.

    python bench/gpu.py [--shapes 0.6b,1.7b,4b,8b] [--steps 20] [--out gpu.csv]
    python bench/gpu.py --tiny --device cpu        # the same on a toy shape, to see that it works

Needs a CUDA machine, torch >= 2.11, transformers >= 5.17, peft, accelerate, pydantic and this repository, nothing else:
weights are random, rows are made up, nothing is fetched. Each measurement is a process of its own. First the roof: the
best rate of bf16 matrix products. Then LoRA (rank 16, every linear layer) on 8 rows a step of 2,048 tokens, each row
packed from four examples (Sartor keeps them apart; the Trainer's rows are plain). Share of the roof: 4·N·tokens/s over
it, N the weights in matrix products (the head once, no embedding table). What runs out of memory is written as that,
and the Trainer is tried again with a row at a time.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

SHAPES: dict[str, dict[str, Any]] = {
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "1.7b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 512,
    },
}
"""Qwen3's own numbers (Yang et al. 2025, table 1); the rest is the same in all sizes."""
RANK, ROWS_A_STEP, EXAMPLES_A_ROW, WARM_UP = 16, 8, 4, 3
COLUMNS = (
    "date",
    "machine",
    "torch",
    "transformers",
    "shape",
    "tool",
    "rows_at_once",
    "tokens_per_second",
    "share_of_roof",
    "peak_gib",
    "roof_tflops",
    "loss",
    "note",
)


def config_of(shape: str) -> Any:
    from transformers import Qwen3Config

    usual = {
        "vocab_size": 151936,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
        "rope_theta": 1e6,
        "max_position_embeddings": 40960,
    }
    return Qwen3Config(**{**usual, **SHAPES[shape]})


def model_of(shape: str, device: str) -> Any:
    """Random weights in bfloat16, on the device."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.bfloat16)


def product_weights(model: Any) -> int:
    """The weights in matrix products: every linear layer's, a tied head's once."""
    from torch import nn

    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))


def roof(device: str, size: int) -> float:
    """The best rate of bf16 matrix products, in FLOP/s."""
    import torch

    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    best = 0.0
    for _ in range(5):
        _wait(device)
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        _wait(device)
        best = max(best, 20 * size**3 / (time.perf_counter() - started))
    return best


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def ids_of(shape: str, rows: int, tokens: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, config_of(shape).vocab_size, (rows, tokens)).astype(np.int32)


def run_sartor(shape: str, device: str, steps: int, tokens: int) -> dict[str, Any]:
    """`loop.train` on packed examples: (tokens/s, peak bytes, last loss, rows at once)."""
    from sartor.base.config import RunConfig
    from sartor.base.rundir import RunDir
    from sartor.base.types import Origin, TokenSequence
    from sartor.model import attention
    from sartor.model.load import adapt, save_weights
    from sartor.model.shape import Shape
    from sartor.training import loop
    from sartor.training.job import TrainingJob
    from sartor.training.plan import PlanInputs, make_plan

    model = model_of(shape, device)
    if device == "cpu":
        model.set_attn_implementation(attention.register())
    weights = product_weights(model)
    part = tokens // EXAMPLES_A_ROW
    examples = [
        TokenSequence(row[start : start + part], ((1, part),), Origin("made", "up", number))
        for number, row in enumerate(ids_of(shape, ROWS_A_STEP * steps, tokens), start=1)
        for start in range(0, tokens, part)
    ]
    config = RunConfig.from_dict(
        {
            "lora_rank": RANK,
            "packing": True,
            "max_steps": steps,
            "use_cpu": device == "cpu",
            "plot_loss": False,
            "per_device_train_batch_size": ROWS_A_STEP * EXAMPLES_A_ROW,
            "save_strategy": "no",
            "dtype": "bfloat16",
            "cutoff_len": tokens,
        }
    )
    plan = make_plan(config, PlanInputs.from_rows(examples, [], device, Shape.from_config(model.config)))
    tuned = adapt(model, config.method)
    heard = Heard()
    with tempfile.TemporaryDirectory() as folder:
        results = loop.train(
            TrainingJob(
                RunDir(Path(folder)),
                config,
                plan,
                tuned,
                examples,
                [],
                pad_id=0,
                callbacks=[heard],
                write_model=lambda to: save_weights(tuned, to),
            )
        )
    measured = heard.steps[min(WARM_UP, steps - 1) :]
    return {
        "tokens_per_second": sum(e["tokens"] for e in measured) / sum(e["seconds"] for e in measured),
        "peak_bytes": results["peak_memory_bytes"],
        "loss": heard.steps[-1]["loss"],
        "weights": weights,
        "rows_at_once": min(ROWS_A_STEP, plan.micro_tokens // tokens),
        "note": "recomputed" * plan.gradient_checkpointing,
    }


class Heard:
    """Keeps the loop's step events."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_event(self, event: Any) -> None:
        if event["kind"] == "step":
            self.steps.append(dict(event))


def run_trainer(shape: str, device: str, steps: int, tokens: int, rows_at_once: int) -> dict[str, Any]:
    """transformers' Trainer with PEFT's LoRA; what it leaves open is left at its defaults."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from sartor.model.load import lora_targets
    from sartor.training.memory import PeakMemory

    model = model_of(shape, device)
    weights, targets = product_weights(model), lora_targets(model, ("all",))
    model = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=targets)
    )
    ids = [torch.from_numpy(row.astype("int64")) for row in ids_of(shape, ROWS_A_STEP * steps, tokens)]
    moments: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_end(self, *words: Any, **options: Any) -> None:
            _wait(device)
            moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, PeakMemory(torch.device(device)) as peak:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            bf16=True,
            use_cpu=device == "cpu",
            report_to="none",
            save_strategy="no",
            per_device_train_batch_size=rows_at_once,
            disable_tqdm=True,
            gradient_accumulation_steps=ROWS_A_STEP // rows_at_once,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=[{"input_ids": row, "labels": row} for row in ids],
            callbacks=[Clock()],
        )
        results = trainer.train()
    first = min(WARM_UP, steps - 1) - 1
    seconds = (moments[-1] - moments[first]) / (len(moments) - 1 - first)
    return {
        "tokens_per_second": ROWS_A_STEP * tokens / seconds,
        "peak_bytes": peak.bytes,
        "loss": results.training_loss,
        "weights": weights,
        "rows_at_once": rows_at_once,
    }


def measure(tool: str, shape: str, device: str, steps: int, tokens: int, rows_at_once: int) -> dict[str, Any]:
    """One tool in a process of its own; {"note": …} where it fails."""
    words = [tool, shape, device, str(steps), str(tokens), str(rows_at_once)]
    done = subprocess.run(
        [sys.executable, __file__, "--one", *words], capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    if "out of memory" in done.stderr.lower():
        return {"note": "out of memory", "rows_at_once": rows_at_once}
    return {"note": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:200]}


def one(words: list[str]) -> None:
    """What a process of its own does: the last line printed is the JSON."""
    tool, shape, device = words[:3]
    steps, tokens, rows_at_once = map(int, words[3:])
    if tool == "sartor":
        found = run_sartor(shape, device, steps, tokens)
    else:
        found = run_trainer(shape, device, steps, tokens, rows_at_once)
    print(json.dumps(found))


def line(shape: str, tool: str, found: dict[str, Any], flops: float, machine: str) -> dict[str, Any]:
    import torch
    import transformers

    made = {
        "date": date.today().isoformat(),
        "machine": machine,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "shape": shape,
        "tool": tool,
        "roof_tflops": round(flops / 1e12, 2),
        "rows_at_once": found.get("rows_at_once", ""),
        "note": found.get("note", ""),
    }
    if "tokens_per_second" in found:
        rate = found["tokens_per_second"]
        made |= {
            "tokens_per_second": round(rate, 1),
            "share_of_roof": round(4 * found["weights"] * rate / flops, 4),
            "peak_gib": round(found["peak_bytes"] / 2**30, 3),
            "loss": round(found["loss"], 4),
        }
    return made


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--shapes", default="0.6b,1.7b,4b,8b")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--tokens", type=int, default=2048, help="of a row")
    options.add_argument("--tiny", action="store_true", help="a toy shape, five steps")
    options.add_argument("--out", type=Path, default=Path("gpu.csv"))
    options.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one:
        one(chosen.one)
        return 0

    import torch

    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here; nothing was measured. (--tiny --device cpu shows that the rest works.)")
        return 1
    shapes, steps, tokens = chosen.shapes.split(","), chosen.steps, chosen.tokens
    if chosen.tiny:
        shapes, steps, tokens = ["tiny"], 5, 64
    machine = torch.cuda.get_device_name() if chosen.device == "cuda" else "cpu"
    flops = roof(chosen.device, 512 if chosen.tiny else 8192)
    torch.cuda.empty_cache()
    print(f"{machine}: roof {flops / 1e12:.2f} TFLOP/s in bf16")
    with chosen.out.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for shape in shapes:
            for tool, rows_at_once in (("sartor", 0), ("trainer", ROWS_A_STEP), ("trainer", 1)):
                found = measure(tool, shape, chosen.device, steps, tokens, rows_at_once)
                made = line(shape, tool, found, flops, machine)
                table.writerow(made)
                file.flush()
                print("  ".join(f"{key} {made[key]}" for key in COLUMNS[4:] if made.get(key) not in (None, "")))
                if tool == "trainer" and "tokens_per_second" in found:
                    break
    return 0


if __name__ == "__main__":
    sys.exit(main())
