"""Small trainings: random rows, settings, a run over the tiny model, what it wrote, and ways to stop it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sartor.base.config import RunConfig
from sartor.base.rundir import RunDir, read_json_lines
from sartor.base.types import Origin, TokenSequence
from sartor.model.load import adapt
from sartor.training import loop
from sartor.training.job import TrainingJob
from sartor.training.plan import Plan, PlanInputs, make_plan


def rows(n: int, seed: int = 0) -> list[TokenSequence]:
    """Random rows of 5–24 tokens; the second half of each is labels."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(n):
        length = int(random.integers(5, 25))
        ids = random.integers(0, 255, length).astype(np.int32)
        made.append(TokenSequence(ids, ((length // 2, length),), Origin("d", "d.json", number + 1)))
    return made


def config_of(**settings: Any) -> RunConfig:
    base = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2.0,
        "bf16": False,
        "use_cpu": True,
        "plot_loss": False,
        "save_strategy": "no",
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
    }
    return RunConfig.from_dict({**base, **settings})


def plan_of(config: RunConfig, learn: list[TokenSequence], held_out: list[TokenSequence]) -> Plan:
    return make_plan(config, PlanInputs.from_rows(learn, held_out, "cpu"))


def run_training(folder: Path, model: Any, config: RunConfig, learn: list[TokenSequence], **options: Any) -> Any:
    held_out = options.pop("held_out", [])
    model = adapt(model, config.method)
    loop.train(
        TrainingJob(
            RunDir(folder),
            config,
            options.pop("plan", None) or plan_of(config, learn, held_out),
            model,
            learn,
            held_out,
            pad_id=257,
            write_model=lambda to: model.save_pretrained(to),
            **options,
        )
    )
    return model


def trained(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_json_lines(folder / "events.jsonl") if event["kind"] == kind]


class StopAt:
    """Raises a signal after a step, as a person would."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_event(self, event: Any) -> None:
        if event["kind"] == "step" and event["step"] == self.step:
            signal.raise_signal(self.number)


class Shortage:
    """The head's loss refuses more than so many rows at once, as an allocator does."""

    def __init__(self, most: int, error: type[Exception]) -> None:
        from sartor.training.stages import sft

        self.most, self.error, self.real, self.seen = most, error, sft.summed_loss, 0

    def __call__(self, model: Any, batch: Any) -> Any:
        if len(batch.ids_BT) > self.most:
            torch.rand(3)  # it got as far as a dropout
            raise self.error(
                "CUDA out of memory"
                if self.error is torch.OutOfMemoryError
                else "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        self.seen = max(self.seen, len(batch.ids_BT))
        return self.real(model, batch)
