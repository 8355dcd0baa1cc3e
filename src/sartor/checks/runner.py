"""Runs every rule over a loaded dataset and its tokens; writes the rows that are not used when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from sartor.base.config import RunConfig
from sartor.base.files import atomic_open
from sartor.base.process import gc_paused
from sartor.base.registry import plugins
from sartor.base.types import Example, Origin, Skipped
from sartor.checks.finding import ORDER, CheckResult, Finding
from sartor.checks.lint_input import LintInput, length_of, row_of
from sartor.prompt.encode import Encoder

if TYPE_CHECKING:
    from sartor.data.load import Loaded

RULES = "sartor.checks.rules"


@gc_paused()
def check(
    loaded: Loaded,
    encoder: Encoder,
    config: RunConfig | None = None,
    *,
    held_out: Iterable[Example] = (),
    progress: Callable[[int, int | None], None] | None = None,
) -> CheckResult:
    """What is wrong or odd in a loaded dataset, as it would be trained with these settings.

    Rows held out by `val_size` and those given as `held_out` (another dataset's) are compared with the rows to learn.
    """
    from sartor.data.split import split_loaded

    config = config or RunConfig()
    parts = split_loaded(
        loaded, config.data.val_size, config.train.seed if config.data.split_seed is None else config.data.split_seed
    )
    learned, apart = list(parts.train), [*parts.held_out, *held_out]
    encoded = encoder.encode_all([*learned, *apart], progress)
    lengths = {row.origin.id: length_of(row) for row in encoded.encoded if row.origin is not None}
    overlong = {
        skipped.origin.id: int(str(skipped.params["tokens"]))
        for skipped in encoded.skipped
        if "tokens" in skipped.params
    }
    subject = LintInput(
        [*(row_of(example) for example in learned), *(row_of(example, True) for example in apart)],
        config,
        tuple(encoder.codec.control.values()),
        lengths,
        overlong,
    )
    findings = [Finding.from_skipped(skipped) for skipped in (*loaded.ledger.skipped, *encoded.skipped)]
    findings += [Finding(note.code, "note", params=note.params) for note in (*loaded.ledger.notes, *encoded.notes)]
    facts: dict[str, float] = {}
    for rule in plugins(RULES):
        findings += rule.find(subject)
        facts.update(rule.facts(subject) if hasattr(rule, "facts") else {})
    findings.sort(key=lambda finding: (ORDER.index(finding.severity), *_place(finding.origin)))
    return CheckResult(
        ", ".join({row.origin.dataset: None for row in subject.rows}), len(subject.rows), tuple(findings), facts
    )


def write_rejects(path: Path, skipped: Iterable[Skipped], rows: Iterable[tuple[Origin, Any]]) -> int:
    """Write every row that is not used as JSONL: id, file, row, line, code, field, reason, fix, and the row itself.

    Returns how many. Raises: RunError on a full disk.
    """
    reasons = {skip.origin.id: skip for skip in skipped}
    count = 0
    with atomic_open(path) as file:
        for origin, row in rows:
            if (skip := reasons.get(origin.id)) is None:
                continue
            count += 1
            told = {
                "id": origin.id,
                "file": origin.file,
                "row": origin.row,
                "line": origin.line,
                "code": skip.code,
                "field": skip.field,
                "reason": skip.reason,
                "fix": str(skip.fix),
                "data": row,
            }
            file.write(orjson.dumps(told, default=str) + b"\n")
    return count


def _place(origin: Origin | None) -> tuple[str, str, int]:
    return (origin.dataset, origin.file, origin.row) if origin else ("", "", 0)
