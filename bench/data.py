"""Data beside LLaMA-Factory 0.9.5: load + template + encode of 19,990 alpaca rows, and how files grow; one run.

    python bench/data.py FOLDER [--times 10] [--sizes 10000 100000 1000000] [--check 100000] [--only PART]

FOLDER holds alpaca_zh_demo.json and alpaca_en_demo.json (LLaMA-Factory's demo data). Each tool works in a process of
its own on the same file with SmolLM2's tokenizer and the template chatml; time is measured from the file name to the
last encoded row, without imports and the tokenizer. Equal work is proved first: ids and labels must agree up to the
last end token (LLaMA-Factory also learns the line break after it). "Bare" is `encode_batch_fast` on the same rendered
texts. The growth reads files of generated rows, JSON array, JSONL and CSV; its slope is that of log time over log rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import rivals

CUTOFF = 2048
LLAMA_FACTORY = """
import json, sys, time
import numpy as np
from llamafactory.hparams import get_train_args
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.model import load_tokenizer
settings = json.load(open(sys.argv[1], encoding="utf-8"))
model_args, data_args, training_args, _, _ = get_train_args(settings)
module = load_tokenizer(model_args)
template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
begin = time.perf_counter()
rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)["train_dataset"]
seconds = time.perf_counter() - begin
ids, labels = [row["input_ids"] for row in rows], [row["labels"] for row in rows]
np.savez(sys.argv[2], seconds=seconds, lengths=[len(row) for row in ids], ids=np.concatenate(ids),
         labels=np.concatenate(labels))
"""


def demo_rows(folder: Path) -> list[dict[str, Any]]:
    """Both demo files, Chinese and English."""
    names = ("alpaca_zh_demo.json", "alpaca_en_demo.json")
    return [row for name in names for row in json.loads((folder / name).read_text(encoding="utf-8"))]


def make_rows(folder: Path, target: Path, times: int) -> int:
    """`times` copies of both demo files, each row told apart by a number, so that nothing is cached."""
    demos = demo_rows(folder)
    rows = [{**row, "instruction": f"{row['instruction']} ({copy})"} for copy in range(times) for row in demos]
    target.mkdir()
    (target / "alpaca.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    entry = {"alpaca": {"file_name": "alpaca.json"}}
    (target / "dataset_info.json").write_text(json.dumps(entry), encoding="utf-8")
    return len(rows)


def encode_here(data: Path, model: str, out: Path) -> None:
    """Sartor's side, and bare tokenizing of the same texts, in this process."""
    from sartor.base.process import gc_paused
    from sartor.base.settings import PromptSettings
    from sartor.data.load import load
    from sartor.model.load import load_tokenizer
    from sartor.prompt.encode import Encoder
    from sartor.prompt.template import Template

    tokenizer = load_tokenizer(model)
    encoder = Encoder(
        tokenizer, Template.from_tokenizer(tokenizer, "chatml"), PromptSettings(template="chatml", cutoff_len=CUTOFF)
    )
    begin = time.perf_counter()
    with gc_paused():  # as `train` does
        loaded = load("alpaca", data)
        rows = encoder.encode_all(loaded.examples)
    seconds = time.perf_counter() - begin
    texts = [encoder.template.render(example.messages) for example in loaded.examples]  # type: ignore[union-attr]
    begin = time.perf_counter()
    tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    bare = time.perf_counter() - begin
    np.savez(
        out,
        seconds=seconds,
        bare=bare,
        rows=[row.origin.row for row in rows.encoded],
        lengths=[len(row) for row in rows.encoded],
        ids=np.concatenate([row.ids for row in rows.encoded]),
        labels=np.concatenate([row.labels for row in rows.encoded]),
    )


def encode_there(data: Path, model: str, out: Path, environment: Path, workers: int | None) -> None:
    """LLaMA-Factory's side, in its own environment, with nothing cached."""
    settings = {
        "model_name_or_path": model,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "dataset": "alpaca",
        "dataset_dir": str(data),
        "template": "chatml",
        "cutoff_len": CUTOFF,
        "output_dir": str(out.parent / "unused"),
        "overwrite_cache": True,
        "preprocessing_num_workers": workers,
        "report_to": "none",
        "use_cpu": True,
    }
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        folder = Path(name)
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        (folder / "encode.py").write_text(LLAMA_FACTORY, encoding="utf-8")
        command = [
            str(environment / "bin" / "python"),
            str(folder / "encode.py"),
            str(folder / "settings.json"),
            str(out),
        ]
        apart = {"HF_DATASETS_CACHE": str(folder / "cache"), "DISABLE_VERSION_CHECK": "1"}
        rivals.run(command, folder, rivals.llama_factory_environment(environment) | apart)


def agreement(ours: Path, theirs: Path, rows: int) -> tuple[float, list[str]]:
    """Share of our rows whose ids and labels are theirs up to the last learned token of ours; and the others."""
    here, there = np.load(ours), np.load(theirs)
    if len(there["lengths"]) != rows:
        return 0.0, [f"LLaMA-Factory kept {len(there['lengths'])} of {rows} rows: they cannot be paired"]
    starts = np.concatenate([[0], np.cumsum(there["lengths"])])
    different = []
    ids, labels, other_ids, other_labels = here["ids"], here["labels"], there["ids"], there["labels"]
    at = 0
    for row, length in zip(here["rows"], here["lengths"]):
        end = int(np.flatnonzero(labels[at : at + length] >= 0)[-1]) + 1
        begin = starts[row - 1]
        same = all(
            np.array_equal(one[at : at + end], other[begin : begin + end])
            for one, other in ((ids, other_ids), (labels, other_labels))
        )
        if not same:
            different.append(f"row {row}: {length} tokens here, {there['lengths'][row - 1]} there")
        at += length
    return 1 - len(different) / len(here["rows"]), different


def make_file(path: Path, count: int) -> None:
    """Generated rows of about 200 bytes as a JSON array, JSONL or CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = ({"instruction": f"What is number {n}?", "output": f"It is {n}. " * 12} for n in range(count))
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, ("instruction", "output"))
            writer.writeheader()
            writer.writerows(rows)
            return
        between = ",\n" if path.suffix == ".json" else "\n"
        file.write("[" if path.suffix == ".json" else "")
        for n, row in enumerate(rows):
            file.write((between if n else "") + json.dumps(row))
        file.write("]" if path.suffix == ".json" else "\n")


READ = """
import sys, time
from pathlib import Path
from sartor.data.files import raw_rows
begin = time.perf_counter()
count = sum(1 for _ in raw_rows(Path(sys.argv[1])))
seconds = time.perf_counter() - begin
status = Path("/proc/self/status").read_text(encoding="ascii")
print(count, seconds, status.split("VmHWM:")[1].split()[0])
"""
CHECK = """
import contextlib
from sartor.cli import main
with contextlib.suppress(SystemExit):  # 1 for findings
    main()
"""
STREAM = """
import sys, time
from pathlib import Path
from sartor.api.prepare_data import make_encoder
from sartor.api.streaming import prepare_stream
from sartor.base.config import RunConfig
config = RunConfig.from_dict({"dataset": "made", "dataset_dir": sys.argv[1], "streaming": True, "max_steps": 1000})
encoder = make_encoder(config)
begin = time.perf_counter()
rows = prepare_stream(config, encoder)
stream = rows.train_ids
for position in range(len(stream)):
    stream[position]
    if position == 15:
        first = time.perf_counter() - begin
seconds = time.perf_counter() - begin
rows.close()
peak = Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0]
print(first, seconds, peak)
"""
"""READ prints rows, seconds and the peak in KiB (Linux); `ru_maxrss` would count the memory of the forking process."""


def growth(folder: Path, sizes: list[int]) -> None:
    """Seconds and peak memory of reading each kind of file at each size, and the slope between the ends."""
    for suffix in (".json", ".jsonl", ".csv"):
        seconds = []
        for size in sizes:
            path = folder / f"grown{suffix}"
            make_file(path, size)
            done = rivals.run([sys.executable, "-c", READ, str(path)], folder)
            count, took, peak = done.output.split()
            assert int(count) == size, f"{count} of {size} rows"
            seconds.append(float(took))
            print(f"{suffix:7}{size:>10,} rows {float(took):8.2f} s {int(peak) >> 10:6,} MiB", flush=True)
            path.unlink()
        if len(sizes) > 1:
            slope = math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])
            print(f"{suffix:7}log-log slope {slope:.2f} (target at most 1.05)", flush=True)


def check_time(folder: Path, data: Path, count: int) -> None:
    """`sartor check` as a command on rows mixed of the demo's sentences, every hundredth nearly repeated."""
    rows = [row for row in demo_rows(data) if row["output"]]
    sentences = [s for row in rows for s in re.split(r"(?<=[.!?。！？])\s*", row["output"]) if len(s) > 10]
    draw, made = random.Random(1), []
    for number in range(count):
        row = rows[number % len(rows)]
        question = f"{row['instruction']} {draw.choice(sentences)[:60]}"
        answer = " ".join(draw.sample(sentences, draw.randint(2, 6)))
        made.append({"instruction": question, "input": row.get("input", ""), "output": answer})
    for number in range(0, count // 50, 2):
        made[number + 1] = {**made[number], "output": made[number]["output"] + "."}
    (folder / "rows.json").write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    (folder / "dataset_info.json").write_text('{"made": {"file_name": "rows.json"}}', encoding="utf-8")
    done = rivals.run([sys.executable, "-c", CHECK, "check", "made", "--dataset-dir", str(folder)], folder)
    print(f"check  {count:>10,} rows {done.seconds:8.1f} s {done.peak_bytes >> 20:6,} MiB (target 60 s)", flush=True)


def stream_time(folder: Path, size: int) -> None:
    """Seconds from the settings to the first row of a stream, and to the end of its first thousand batches of 16."""
    make_file(folder / "rows.jsonl", size)
    (folder / "dataset_info.json").write_text('{"made": {"file_name": "rows.jsonl"}}', encoding="utf-8")
    done = rivals.run([sys.executable, "-c", STREAM, str(folder)], folder)
    first, thousand, peak = done.output.split()[-3:]
    print(
        f"stream {size:>10,} rows: first batch after {float(first):.2f} s (target 5), a thousand after "
        f"{float(thousand):.2f} s, {int(peak) >> 10:,} MiB",
        flush=True,
    )


def beside(folder: Path, data: Path, times: int) -> None:
    """Both tools on the same rows, after the proof that they do equal work."""
    from sartor.model.locate import resolve_model

    model = str(resolve_model("smollm2-135m"))
    rows = make_rows(data, folder / "data", times)
    ours = folder / "ours.npz"
    command = [sys.executable, os.path.abspath(__file__), str(data), "--side", str(folder / "data"), model, str(ours)]
    rivals.run(command, folder)
    here = np.load(ours)
    speed, bare = rows / float(here["seconds"]), rows / float(here["bare"])
    print(f"Sartor           {speed:8,.0f} rows/s  ({rows:,} rows, {len(here['ids']):,} tokens)", flush=True)
    print(f"bare             {bare:8,.0f} rows/s  Sartor has {speed / bare:.2f} of it (target 0.75)", flush=True)
    environment = rivals.llama_factory()
    for workers, target in ((None, 3.0), (2, 1.8)) if environment else ():
        theirs = folder / f"theirs-{workers}.npz"
        encode_there(folder / "data", model, theirs, environment, workers)  # type: ignore[arg-type]
        same, different = agreement(ours, theirs, rows)
        there = rows / float(np.load(theirs)["seconds"])
        print(f"equal ids and labels: {same:.2%} (target 99.5 %)", *different[:20], sep="\n  ")
        name = f"LLaMA-Factory ({workers or 1})"
        print(f"{name:17}{there:8,.0f} rows/s  Sartor has {speed / there:.2f} of it (target {target})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--times", type=int, default=10, help="copies of the demo rows")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--check", type=int, default=100_000, help="rows to check")
    parser.add_argument("--only", choices=("beside", "growth", "check", "stream"), help="one part alone")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        encode_here(Path(asked.side[0]), asked.side[1], Path(asked.side[2]))
        return
    with tempfile.TemporaryDirectory(prefix="sartor-bench-") as name:
        folder, data = Path(name), asked.folder.resolve()
        parts = {
            "beside": lambda: beside(folder, data, asked.times),
            "growth": lambda: growth(folder, asked.sizes),
            "check": lambda: check_time(folder, data, asked.check),
            "stream": lambda: stream_time(folder, max(asked.sizes)),
        }
        for part, measure in parts.items():
            if asked.only in (None, part):
                measure()


if __name__ == "__main__":
    main()
