"""How many optimizer steps the data gives with these settings, and advice for tiny sets."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput

FEW_STEPS = 50
"""Below so many steps LoRA has hardly moved (the 39 steps of the demo's baseline lower the loss, and little more)."""
TINY_ROWS = 50
HELD_OUT_ROWS = 20
"""Fewer held-out rows show only very large differences."""


def facts(subject: LintInput) -> dict[str, float]:
    """`rows_learned rows_held_out batch steps_each_epoch steps`, on one device."""
    train = subject.config.train
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    rows = len(subject.training_rows)
    each = ceil(rows / batch)
    steps = train.max_steps if train.max_steps > 0 else ceil(each * train.num_train_epochs)
    held_out = len(subject.rows) - rows
    return {"rows_learned": rows, "rows_held_out": held_out, "batch": batch, "steps_each_epoch": each, "steps": steps}


def find(subject: LintInput) -> Iterator[Finding]:
    """Notes: too few rows, too few steps (with the settings that give more), too few held-out rows."""
    known = facts(subject)
    rows, steps, batch = int(known["rows_learned"]), int(known["steps"]), int(known["batch"])
    if not rows:
        return
    if rows < TINY_ROWS:
        yield Finding("tiny-set", "note", params={"rows": rows})
    if steps < FEW_STEPS:
        smaller = max(1, min(batch, rows // 8 or 1))
        params = {
            "steps": steps,
            "batch": batch,
            "smaller": smaller,
            "epochs": min(10, ceil(FEW_STEPS * smaller / rows)),
        }
        yield Finding("few-steps", "note", params=params)
    if 0 < known["rows_held_out"] < HELD_OUT_ROWS:
        yield Finding("few-held-out", "note", params={"rows": int(known["rows_held_out"])})


EXAMPLES = (
    (tuple((f"Question {n}?", "Yes.") for n in range(10)), ("tiny-set", "few-steps")),
    (tuple((f"Question {n}?", "Yes.") for n in range(200)), ()),
)
