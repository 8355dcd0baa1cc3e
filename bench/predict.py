"""Prediction beside LLaMA-Factory 0.9.5: 100 rows, up to 128 new tokens, greedy, the same tuned adapter; one run.

    python bench/predict.py [--batches 8 32] [--rows 100]

One short LoRA training makes the adapter. Each tool then answers the same rows in its own process; samples a second
are each tool's own `predict_samples_per_second` (generating and scoring, no loading). Equal work: the share of rows
with the same answer is printed (greedy decoding in bfloat16 differs between batch shapes), and the mean length.
First token: the time from the question to the first piece of a streamed answer, median of ten.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rivals
from train import Work, prepare, roof, train_sartor

NEW_TOKENS = 128
PARAMETERS = 134.5e6
BATCH_ROWS = 64
"""As `sartor.inference.engine` decodes together."""


def answers(folder: Path) -> list[str]:
    """The texts of a generated_predictions.jsonl, in its order."""
    lines = (folder / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["predict"] for line in lines]


def predict_sartor(work: Work, adapter: Path) -> tuple[dict[str, Any], Path, rivals.Measured]:
    """`sartor predict` with its own batching."""
    out = work.folder / "predicted-sartor"
    settings = {
        "model_name_or_path": work.model,
        "adapter_name_or_path": adapter,
        "eval_dataset": "learned",
        "dataset_dir": work.folder / "data",
        "template": "chatml",
        "max_new_tokens": NEW_TOKENS,
        "output_dir": out,
        "metrics": "bleu-4,rouge-1,rouge-2,rouge-l",
    }
    words = [f"{key}={value}" for key, value in settings.items()]
    done = rivals.run([sys.executable, "-m", "sartor", "predict", *words], work.folder)
    return json.loads((out / "predict_results.json").read_text(encoding="utf-8")), out, done


def predict_llama_factory(
    work: Work, adapter: Path, environment: Path, batch: int
) -> tuple[dict[str, Any], Path, rivals.Measured]:
    """`llamafactory-cli train` with do_predict."""
    out = work.folder / f"predicted-llama-factory-{batch}"
    settings = {
        "model_name_or_path": work.model,
        "adapter_name_or_path": str(adapter),
        "stage": "sft",
        "do_predict": True,
        "finetuning_type": "lora",
        "eval_dataset": "learned",
        "dataset_dir": str(work.folder / "data"),
        "template": "chatml",
        "cutoff_len": 512,
        "output_dir": str(out),
        "overwrite_output_dir": True,
        "per_device_eval_batch_size": batch,
        "predict_with_generate": True,
        "max_new_tokens": NEW_TOKENS,
        "do_sample": False,
        "report_to": "none",
        "bf16": True,
        "use_cpu": True,
    }
    file = work.folder / f"predict-{batch}.yaml"
    file.write_text(json.dumps(settings), encoding="utf-8")
    command = [str(environment / "bin" / "llamafactory-cli"), "train", str(file)]
    done = rivals.run(command, work.folder, rivals.llama_factory_environment(environment))
    return json.loads((out / "predict_results.json").read_text(encoding="utf-8")), out, done


def bandwidth() -> float:
    """Bytes a second that reading a large tensor takes at best."""
    import torch

    tensor, best = torch.ones(1 << 28, dtype=torch.float32), 0.0
    for _ in range(5):
        started = time.perf_counter()
        tensor.sum()
        best = max(best, tensor.nbytes / (time.perf_counter() - started))
    return best


def show_roofs(folder: Path, seconds: float) -> None:
    """How near the machine's limits Sartor's prediction is: products of all tokens, weights read at each step."""
    lines = map(json.loads, (folder / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines())
    sizes = sorted(((line["prompt_tokens"], line["tokens"]) for line in lines), reverse=True)
    written = sum(tokens for _, tokens in sizes)
    steps = sum(max(tokens for _, tokens in sizes[n : n + BATCH_ROWS]) for n in range(0, len(sizes), BATCH_ROWS))
    products = 2 * PARAMETERS * sum(map(sum, sizes)) / seconds / roof()
    weights = 2 * PARAMETERS * steps / seconds / bandwidth()
    print(
        f"  {written / seconds:.0f} tokens/s written in {steps} steps; {products:.1%} of the matrix roof,"
        f" {weights:.1%} of the memory roof ({bandwidth() / 1e9:.1f} GB/s)"
    )


def first_token(work: Work, adapter: Path) -> float:
    """Seconds from the question to the first piece of text, median of ten, after one to warm up."""
    from sartor.inference.engine import Engine

    engine = Engine.load(work.model, adapter, template="chatml")
    seconds = []
    for number, row in enumerate(work.learned[:11]):
        started = time.perf_counter()
        next(engine.stream([{"role": "user", "content": row["instruction"]}]))
        if number:
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batches", type=int, nargs="*", default=[8, 32], help="LLaMA-Factory's batch sizes")
    options.add_argument("--rows", type=int, default=100)
    chosen = options.parse_args()
    environment = rivals.llama_factory()
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(Path(folder), chosen.rows, epochs=1)
        adapter = train_sartor(work, 0).adapter
        ours, our_folder, our_process = predict_sartor(work, adapter)
        mine = answers(our_folder)
        speed = ours["predict_samples_per_second"]
        print(
            f"{len(mine)} rows, mean {statistics.fmean(map(len, mine)):.0f} characters; roof {roof() / 1e9:.0f} GFLOP/s"
        )
        print(f"{'sartor':<26} {speed:>7.2f} samples/s, peak {our_process.peak_bytes / 1e9:.2f} GB")
        show_roofs(our_folder, ours["predict_runtime"])
        for batch in chosen.batches if environment else []:
            theirs, folder_there, process = predict_llama_factory(work, adapter, environment, batch)
            there = answers(folder_there)
            same = sum(a.strip() == b.strip() for a, b in zip(mine, there, strict=True)) / len(mine)
            rate = theirs["predict_samples_per_second"]
            print(
                f"{f'llama-factory, batch {batch}':<26} {rate:>7.2f} samples/s, peak {process.peak_bytes / 1e9:.2f} GB,"
                f" sartor is {speed / rate:.2f}x; same answer {same:.0%},"
                f" mean {statistics.fmean(map(len, there)):.0f} characters"
            )
        print(f"first token in a chat: {first_token(work, adapter):.3f} s")


if __name__ == "__main__":
    main()
