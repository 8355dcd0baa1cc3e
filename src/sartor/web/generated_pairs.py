"""Generated question-answer pairs, from the job that writes them to the dataset they are saved as."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sartor.base.errors import DataError
from sartor.base.files import atomic_write
from sartor.qa_generation.output import write
from sartor.qa_generation.pairs import GroundedPair, Passage, Turn
from sartor.web.jobs import Job

FILE = "pairs.json"
EVERY_S = 1.0
ENDPOINT_ONLY = ("key_env", "max_cost", "name")


@dataclass(slots=True)
class Pair:
    """One pair or conversation under review; `accepted` and the texts of the turns can be edited."""

    turns: list[dict[str, str]]
    """question, answer, quote"""
    spans: list[tuple[int, int]]
    """Start and stop of each turn's quote in the passage."""
    document: str
    sha256: str
    section: str
    start: int
    stop: int
    passage: str
    accepted: bool = True

    @classmethod
    def of(cls, made: GroundedPair) -> Pair:
        place = made.passage
        return cls(
            [asdict(turn) for turn in made.turns],
            list(made.spans),
            place.document,
            place.sha256,
            place.section,
            place.start,
            place.stop,
            place.text,
        )

    @property
    def usable(self) -> bool:
        return self.accepted and all(turn["question"].strip() and turn["answer"].strip() for turn in self.turns)

    def grounded(self) -> GroundedPair:
        """The pair as it is saved, with the edits."""
        turns = [Turn(t["question"].strip(), t["answer"].strip(), t["quote"]) for t in self.turns]
        place = Passage(self.document, self.sha256, self.section, self.start, self.stop, self.passage)
        return GroundedPair(turns[0].question, turns[0].answer, turns[0].quote, place, tuple(turns[1:]))


def estimate(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Passages, requests, tokens, seconds and cost of these arguments, without a request. Raises: SartorError."""
    from sartor.api.generating import estimate_generation

    known = {name: value for name, value in arguments.items() if name not in ENDPOINT_ONLY}
    return estimate_generation(**known).to_json()


def generate(job: Job, progress: Callable[[int, int | None], None]) -> dict[str, Any]:
    """Do the job. Pairs are saved in its folder as they come, and not registered; SIGTERM stops it cleanly.

    Returns the `result` of ended.json. Raises: SartorError.
    """
    from sartor.api import generating

    stop = threading.Event()
    with suppress(ValueError):  # only the main thread can handle signals
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    pairs: list[Pair] = []
    last = 0.0

    def take(made: GroundedPair) -> None:
        nonlocal last
        pairs.append(Pair.of(made))
        if time.monotonic() - last > EVERY_S:
            last = time.monotonic()
            save(job, pairs)

    staged = job.path.parent.parent / "generated"
    made = generating.generate(
        **{**job.arguments, "dataset_dir": staged},
        stop=stop,
        on_pair=take,
        progress=progress,
        on_estimate=lambda found: job.write("estimate.json", found.to_json()),
    )
    found = made.generated
    save(job, [Pair.of(one) for one in found.pairs])
    rejected = dict(Counter(one.reason for one in found.rejected))
    return {
        "pairs": len(found.pairs),
        "rejected": rejected,
        "failed": len(found.failed),
        "stopped": found.stopped,
        "spent": made.spent,
        "reused": found.reused,
    }


def save(job: Job, pairs: Sequence[Pair]) -> None:
    """Save decisions and edits, for a reload and other windows."""
    atomic_write(job.path / FILE, json.dumps([asdict(pair) for pair in pairs], ensure_ascii=False))


def read(job: Job) -> list[Pair]:
    """The pairs that a job has made so far."""
    try:
        return [Pair(**pair) for pair in json.loads((job.path / FILE).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def keep(pairs: Sequence[Pair], name: str, dataset_dir: Path) -> int:
    """Write the accepted pairs as a table and a registered dataset. Returns how many. Raises: DataError for none."""
    taken = [pair.grounded() for pair in pairs if pair.usable]
    if not taken:
        raise DataError("No pair is accepted.", name, "Accept at least one.")
    write(taken, name, dataset_dir)
    return len(taken)
