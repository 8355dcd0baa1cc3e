"""What a training writes beside its weights: LLaMA-Factory's log and results files, and a chart of the loss."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from sartor.base.files import atomic_write
from sartor.base.rundir import RunDir, append_json_line, read_json_lines
from sartor.training.checkpoint import Progress
from sartor.training.plan import Plan


def begin(run: RunDir, step: int) -> None:
    """Drop log lines and events after `step`: a resumed run writes them again."""
    for path, key, kinds in (
        (run.trainer_log, "current_steps", None),
        (run.events, "step", ("step", "eval", "sample", "oom", "skipped_step")),
    ):
        if not path.exists():
            continue
        lines = list(read_json_lines(path))
        kept = [
            line for line in lines if not ((kinds is None or line.get("kind") in kinds) and _is_after(line, key, step))
        ]
        if len(kept) < len(lines):
            atomic_write(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))


def _is_after(line: Mapping[str, Any], key: str, step: int) -> bool:
    value = line.get(key, 0)
    return isinstance(value, int) and value > step


def log_step(run: RunDir, plan: Plan, progress: Progress, loss: float, learning_rate: float) -> None:
    """One line of trainer_log.jsonl, in LLaMA-Factory's fields."""
    left = progress.seconds / max(progress.step, 1) * (plan.total_steps - progress.step)
    append_json_line(
        run.trainer_log,
        {
            "current_steps": progress.step,
            "total_steps": plan.total_steps,
            "loss": loss,
            "lr": learning_rate,
            "epoch": round(progress.step / plan.steps_per_epoch, 4),
            "percentage": round(100 * progress.step / plan.total_steps, 2),
            "elapsed_time": _clock(progress.seconds),
            "remaining_time": _clock(left),
        },
    )


def write_results(
    run: RunDir, plan: Plan, progress: Progress, plot: bool, *, peak_memory_bytes: int, total_seconds: float
) -> dict[str, Any]:
    """train_results.json and all_results.json, and training_loss.png; returns the results.

    `train_loss` is the mean loss of the steps. `train_runtime` counts the steps only; `total_seconds` evaluations and
    saves too, in this process only: a resumed run counts from where it resumed.
    """
    steps = [event for event in run.read_events() if event["kind"] == "step"]
    evaluations = [event for event in run.read_events() if event["kind"] == "eval"]
    rows = len(steps) * plan.global_batch
    rows = min(rows, round(plan.rows * progress.step / plan.steps_per_epoch)) or rows
    seconds = max(progress.seconds, 1e-9)
    results: dict[str, Any] = {
        "epoch": round(progress.step / plan.steps_per_epoch, 4),
        "train_loss": progress.loss_sum / max(progress.step - progress.skipped_steps, 1),
        "train_runtime": round(progress.seconds, 4),
        "train_samples_per_second": round(rows / seconds, 3),
        "train_steps_per_second": round(progress.step / seconds, 3),
        "train_tokens_per_second": round(progress.tokens / seconds, 1),
        "tokens": progress.tokens,
        "label_tokens": progress.label_tokens,
        "steps": progress.step,
        "peak_memory_bytes": peak_memory_bytes,
        "total_seconds": total_seconds,
    }
    run.write_json("train_results.json", results)
    if evaluations:
        results["eval_loss"] = evaluations[-1]["eval_loss"]
        run.write_json("eval_results.json", {"eval_loss": results["eval_loss"], "epoch": results["epoch"]})
    run.write_json("all_results.json", results)
    if plot and steps:
        draw_loss(run, steps, evaluations)
    return results


def draw_loss(run: RunDir, steps: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> None:
    """training_loss.png: each step's loss and the held-out loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([e["step"] for e in steps], [e["loss"] for e in steps], color="#9db4d8", label="training, each step")
    if evaluations:
        axes.plot(
            [e["step"] for e in evaluations],
            [e["eval_loss"] for e in evaluations],
            "o-",
            color="#b4472e",
            label="held out",
        )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per token)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(run / "training_loss.png", dpi=150)


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(max(seconds, 0)))
