"""How many optimizer steps the data gives with these settings, and advice for small datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import ClassVar

from sartor.base.reasons import Reason
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput
from sartor.checks.rules import Rule

FEW_STEPS = 50
"""With fewer steps LoRA has hardly changed (the 39 steps of the demo's baseline lower the loss, and little more)."""
TINY_ROWS = 50
HELD_OUT_ROWS = 20
"""With fewer held-out rows only very large differences are detected."""


class Steps(Rule):
    """Rows and optimizer steps, on one device."""

    name = "steps"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "tiny-set": Reason(
            "There are only {rows} training rows.",
            "They can teach a style or a few facts. Vary the questions about each fact, or generate more "
            "(sartor generate).",
        ),
        "few-steps": Reason(
            "These settings give {steps} optimizer steps (batch size {batch}), too few to learn much.",
            "Set per_device_train_batch_size × gradient_accumulation_steps = {smaller} and "
            "num_train_epochs={epochs}, and watch the held-out loss.",
        ),
        "few-held-out": Reason(
            "Only {rows} rows are held out: only very large differences can be detected.",
            "Raise val_size, or set eval_dataset.",
        ),
    }

    def facts(self, lint_input: LintInput) -> dict[str, float]:
        """`training_rows held_out_rows batch_size steps_per_epoch steps`, on one device."""
        train = lint_input.config.train
        batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
        rows = len(lint_input.training_rows)
        sequences = sum(lint_input.sequences.get(row.origin.id, 1) for row in lint_input.training_rows)
        per_epoch = ceil(sequences / batch)
        steps = train.max_steps if train.max_steps > 0 else ceil(per_epoch * train.num_train_epochs)
        held_out = len(lint_input.rows) - rows
        return {
            "training_rows": rows,
            "held_out_rows": held_out,
            "batch_size": batch,
            "steps_per_epoch": per_epoch,
            "steps": steps,
        }

    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """Notes: too few rows, too few steps (with the settings that give more), too few held-out rows."""
        known = self.facts(lint_input)
        rows, steps, batch = int(known["training_rows"]), int(known["steps"]), int(known["batch_size"])
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
        if 0 < known["held_out_rows"] < HELD_OUT_ROWS:
            yield Finding("few-held-out", "note", params={"rows": int(known["held_out_rows"])})


PLUGIN = Steps()
EXAMPLES = (
    (tuple((f"Question {n}?", "Yes.") for n in range(10)), ("tiny-set", "few-steps")),
    (tuple((f"Question {n}?", "Yes.") for n in range(200)), ()),
)
"""(question–answer pairs, the codes found in them)."""
