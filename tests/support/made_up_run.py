"""A run folder made without training: every file that the report reads, as the layers write them."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

from sartor.base.rundir import RunDir
from sartor.base.types import Score
from sartor.checks.leaks import Leak
from sartor.evaluation.difference import Measure, compare_rows
from sartor.evaluation.score import score
from sartor.evaluation.verdict import AnswerCounts, Findings, Verdict, make_verdict, memorization

HOSTILE = "<script>alert('x')</script> & <b>{{ 7*7 }}</b>"
PRIDE = Path(__file__).parents[2] / "examples" / "pride" / "pride_qa_en.csv"


def make_run(folder: Path, *, seed: int = 3, gain: float = 0.5, held_out: int = 20, evals: bool = True) -> RunDir:
    """Write the run and return it; `gain` is the mean drop of the loss from base to tuned, in nats per token."""
    source = random.Random(seed)
    run = RunDir(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with PRIDE.open(encoding="utf-8-sig", newline="") as file:
        pairs = [(row["question"], row["answer"]) for row in csv.DictReader(file)]
    pairs[1] = (HOSTILE, HOSTILE + " answered")
    held, training = pairs[:held_out], pairs[held_out : held_out + 20]
    _write_settings(run, train_rows=80, held_out=held_out)
    _write_events(run, source, gain, evals)
    sides = {
        name: _write_answers(run, source, name, rows, gain) for name, rows in (("held_out", held), ("train", training))
    }
    run.write_json("verdict.json", _verdict(sides, held).to_json())
    return run


def _write_settings(run: RunDir, train_rows: int, held_out: int) -> None:
    run.config.write_text(
        "model_name_or_path: smollm2-135m\ndataset: pride_en\nfinetuning_type: lora\nlearning_rate: 5.0e-4\n"
        "num_train_epochs: 6.0\nper_device_train_batch_size: 8\nmax_new_tokens: 96\nval_size: 20\nseed: 42\n"
        "judge_api_key: ${JUDGE_KEY}\n",
        encoding="utf-8",
    )
    skipped = [
        {
            "id": "pride_en:17",
            "file": "pride_qa_en.csv",
            "row": 17,
            "line": 18,
            "code": "answer-missing",
            "field": "answer",
            "reason": f"The row has no answer. {HOSTILE}",
            "fix": "Fill in answer, or delete it.",
        },
        {
            "id": "pride_en:58",
            "file": "pride_qa_en.csv",
            "row": 58,
            "line": 59,
            "code": "overlong",
            "field": None,
            "reason": "The row has 713 tokens; cutoff_len is 512.",
            "fix": "Raise cutoff_len, or shorten the row.",
        },
    ]
    ledger = {
        "read": train_rows + held_out + 2,
        "training": train_rows,
        "held_out": held_out,
        "left_out": 0,
        "repeats": 0,
        "skipped": skipped,
        "notes": ["The unnamed first column is not mapped."],
    }
    file = {"path": "data/pride_qa_en.csv", "sha256": "3f" * 32, "encoding": "utf-8", "rows": 102}
    run.write_json(
        "data.json",
        {
            "datasets": [{"name": "pride_en", "files": [file]}],
            "ledger": ledger,
            "split": {"val_size": held_out, "seed": 42},
        },
    )
    run.write_json(
        "plan.json",
        {
            "total_steps": 60,
            "global_batch": 8,
            "dtype": "bfloat16",
            "device": "cpu",
            "reasons": {"total_steps": "80 rows / 8 a step = 10 steps × 6 epochs"},
            "ignored_keys": {"overwrite_cache": "The token store is keyed by content."},
        },
    )
    run.write_json("env.json", {"sartor": "0.1.0", "torch": "2.13.0", "python": "3.11", "cores": 2, "devices": []})
    run.write_json(
        "all_results.json", {"train_runtime": 171.0, "train_tokens_per_second": 702.3, "peak_memory_bytes": 2 << 30}
    )


def _write_events(run: RunDir, source: random.Random, gain: float, evals: bool) -> None:
    run.event("started", pid=1)
    run.event("warning", text=f"A warning with {HOSTILE}")
    for step in range(1, 61):
        run.event(
            "step", step=step, loss=3.1 - gain * 2 * (1 - math.exp(-step / 15)) + source.gauss(0, 0.12), epoch=step / 10
        )
        if evals and step % 10 == 0:
            run.event("eval", step=step, eval_loss=3.05 - gain * (1 - math.exp(-step / 14)), epoch=step / 10)
    run.event("finished")


def _write_answers(
    run: RunDir, source: random.Random, name: str, pairs: list[tuple[str, str]], gain: float
) -> dict[str, Any]:
    sides: dict[str, Any] = {}
    gain = gain * (1.6 if name == "train" else 1.0)
    hard = [source.gauss(3.0, 0.4) for _ in pairs]
    for who in ("base", "tuned"):
        texts, losses = [], []
        for number, (question, reference) in enumerate(pairs):
            words = reference.split()
            if who == "base":
                text = f"{question.rstrip('?')} is a question about a book. The {words[0].lower()} answer depends."
            else:
                kept = [w if source.random() < 0.4 + gain / 2 else source.choice(words) for w in words]
                text = " ".join(kept[: max(3, int(len(kept) * source.uniform(0.6, 1.0)))])
            texts.append(text)
            losses.append(hard[number] - (who == "tuned") * source.gauss(gain, 0.35))
        scores = score(texts, [reference for _, reference in pairs])
        folder = run.predictions / f"{who}-{name}"
        folder.mkdir(parents=True)
        lines = [
            {
                "prompt": f"<|im_start|>user\n{question}<|im_end|>\n",
                "question": question,
                "predict": texts[i],
                "label": reference,
                "id": f"pride_en:{i + 1}",
                "loss": losses[i],
                "tokens": len(texts[i]) // 4,
                "prompt_tokens": 30,
                "stop_reason": "length" if i % 5 == 0 and who == "tuned" else "stop",
                "scores": {n: s.per_row[i] for n, s in scores.items() if s.per_row},
            }
            for i, (question, reference) in enumerate(pairs)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "generated_predictions.jsonl").write_text(text, encoding="utf-8")
        loss = Score("loss", sum(losses) / len(losses), (0.0, math.inf), len(losses), "", False, tuple(losses))
        sides[who] = {**scores, "loss": loss}
    return sides


def _verdict(sides: dict[str, Any], held: list[tuple[str, str]]) -> Verdict:
    def difference(name: str, metric: str) -> Any:
        base, tuned = (sides[name][who][metric] for who in ("base", "tuned"))
        measure = Measure(metric, base.higher_is_better, base.range)
        return compare_rows(base.per_row, tuned.per_row, measure, comparisons=1 if metric == "loss" else 14)

    primary = difference("held_out", "loss")
    others = [
        difference("held_out", name) for name, s in sides["held_out"]["base"].items() if s.per_row and name != "loss"
    ]
    leaks = [Leak("pride_en:3", "pride_en:40", 0.93, held[2][0], held[2][0] + "!")]
    memory = memorization(difference("train", "loss"), primary, verbatim_train=0.15, verbatim_held_out=0.0)
    answers = AnswerCounts(primary.n, exact=(0, 0), cut=(0, primary.n // 5), empty=(0, 0), limit=96)
    findings = Findings(primary, tuple(others), answers=answers, memorization=memory, leaks=tuple(leaks))
    return make_verdict(findings)
