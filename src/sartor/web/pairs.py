"""Generated pairs between the job that made them and the dataset that they become; draws nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.base.errors import DataError
from sartor.base.system import atomic_write
from sartor.data.generate.pairs import Grounded, Passage
from sartor.data.generate.writing import write
from sartor.web.jobs import Job

if TYPE_CHECKING:
    from sartor.api.generating import Made

FILE = "pairs.json"


@dataclass(slots=True)
class Pair:
    """One pair as a person sees it; `accepted` and the texts may be changed."""

    question: str
    answer: str
    quote: str
    document: str
    sha256: str
    section: str
    start: int
    stop: int
    passage: str
    accepted: bool = True


def estimate(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What `api.generate` with these arguments would ask at most: passages, tokens, money. Raises: SartorError."""
    from sartor.api.generating import generate

    class Known(Exception):
        pass

    found: dict[str, Any] = {}

    def stop(told: dict[str, Any]) -> None:
        found.update(told)
        raise Known

    try:
        generate(**arguments, on_start=stop)
    except Known:
        return found
    raise AssertionError("generate told no estimate")


def tell(job: Job, made: Made) -> dict[str, Any]:
    """Keep the pairs beside the job. Returns what ended.json says of them."""
    pairs = [
        Pair(p.question, p.answer, p.quote, p.passage.document, p.passage.sha256, p.passage.section,
                    p.passage.start, p.passage.stop, p.passage.text)
        for p in made.generated.pairs
    ]  # fmt: skip
    save(job, pairs)
    refused: dict[str, int] = {}
    for one in made.generated.refused:
        refused[one.reason] = refused.get(one.reason, 0) + 1
    return {"pairs": len(pairs), "refused": refused, "failed": len(made.generated.failed)}


def save(job: Job, pairs: Sequence[Pair]) -> None:
    """Keep what a person decided and changed, for a reload and other windows."""
    atomic_write(job.path / FILE, json.dumps([asdict(pair) for pair in pairs], ensure_ascii=False))


def read(job: Job) -> list[Pair]:
    """The pairs of a job that is done; none where it left no file."""
    try:
        return [Pair(**pair) for pair in json.loads((job.path / FILE).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def keep(pairs: Sequence[Pair], name: str, dataset_dir: Path) -> int:
    """Write the accepted pairs as table and registered dataset. Returns how many. Raises: DataError for none."""
    taken = [pair for pair in pairs if pair.accepted and pair.question.strip() and pair.answer.strip()]
    if not taken:
        raise DataError("No pair is taken.", name, "Tick at least one.")
    grounded = [
        Grounded(p.question.strip(), p.answer.strip(), p.quote,
                 Passage(p.document, p.sha256, p.section, p.start, p.stop, p.passage))
        for p in taken
    ]  # fmt: skip
    write(grounded, name, dataset_dir)
    return len(taken)
