"""TrainingJob: everything that one training needs, made once before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from sartor.base.config import RunConfig
from sartor.base.rundir import RunDir
from sartor.base.types import Encoded
from sartor.training.plan import Plan


class Callback(Protocol):
    """Receives every event as it is appended to events.jsonl."""

    def on_event(self, event: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What is trained, on what, how, and where it is written. The loop and the pre-flight take the same one."""

    run: RunDir
    config: RunConfig
    plan: Plan
    model: nn.Module
    """With its adapter, if any: the parameters that require gradients are trained."""
    rows: Sequence[Encoded]
    eval_rows: Sequence[Encoded]
    """Held-out rows; may be empty."""
    pad_id: int
    write_model: Callable[[Path], None]
    """Writes weights, tokenizer and template into a folder, for checkpoints and at the end."""
    reference: nn.Module | None = None
    """The model that preference losses compare with; None: `model` as it begins."""
    create: Callable[[], None] | None = None
    """Makes the run's folder, once everything before the first step has succeeded; None: there is one."""
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    """Name → SHA-256 of what must be the same when a run resumes."""
    callbacks: Sequence[Callback] = ()
    resume: Path | None = None
    """The verified checkpoint to resume from."""
    allow_changed: bool = False
    """Resume even when the fingerprint differs."""
    sample: Callable[[], Sequence[tuple[str, str]]] | None = None
    """Answers the fixed prompts: (prompt, answer) each."""
    replay: Mapping[int, int] = field(default_factory=dict)
    """Step → divisor of the micro-batches, where the run that is repeated ran out of memory."""
