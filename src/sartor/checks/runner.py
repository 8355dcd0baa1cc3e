"""Run every rule on a loaded dataset and its tokens; write the skipped rows to a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sartor.base.config import RunConfig
from sartor.base.files import atomic_open
from sartor.base.process import gc_paused
from sartor.base.types import Example, Origin, RawRow, Skipped
from sartor.checks.finding import ORDER, CheckResult, Finding
from sartor.checks.lint_input import LintInput, length_of, row_of
from sartor.checks.rules import RULES
from sartor.data.import_record import RefusedRow
from sartor.data.json_rows import encoded_row
from sartor.data.load import Loaded
from sartor.data.split import split_loaded
from sartor.prompt.encode import Encoder


@gc_paused()
def check(
    loaded: Loaded,
    encoder: Encoder,
    config: RunConfig | None = None,
    *,
    held_out: Iterable[Example] = (),
    progress: Callable[[int, int | None], None] | None = None,
) -> CheckResult:
    """What is wrong or unusual in a loaded dataset, as it would be trained on with these settings.

    Rows held out by `val_size` and those given as `held_out` (another dataset's) are compared with the training rows.
    """
    config = config or RunConfig()
    parts = split_loaded(
        loaded, config.data.val_size, config.train.seed if config.data.split_seed is None else config.data.split_seed
    )
    training, holding_out = list(parts.train), [*parts.held_out, *held_out]
    encoded = encoder.encode_all([*training, *holding_out], progress)
    lengths: dict[str, int] = {}
    sequences: Counter[str] = Counter()
    for row in encoded.encoded:
        if row.origin is not None:
            lengths[row.origin.id] = max(length_of(row), lengths.get(row.origin.id, 0))
            sequences[row.origin.id] += 1
    overlong = {
        skipped.origin.id: int(str(skipped.params["tokens"]))
        for skipped in encoded.skipped
        if "tokens" in skipped.params
    }
    lint_input = LintInput(
        [*(row_of(example) for example in training), *(row_of(example, True) for example in holding_out)],
        config,
        tuple(encoder.codec.control.values()),
        lengths,
        overlong,
        sequences,
    )
    findings = [Finding.from_skipped(skipped) for skipped in (*loaded.ledger.skipped, *encoded.skipped)]
    findings += [Finding(note.code, "note", params=note.params) for note in (*loaded.ledger.notes, *encoded.notes)]
    facts: dict[str, float] = {}
    for rule in RULES.all():
        findings += rule.find(lint_input)
        facts.update(rule.facts(lint_input))
    if summary := loaded.imported:
        facts |= {"import_read": summary.read, "import_kept": summary.kept, "import_refused": summary.refused}
    findings.sort(key=lambda finding: (ORDER.index(finding.severity), *_place(finding.origin)))
    return CheckResult(
        ", ".join({row.origin.dataset: None for row in lint_input.rows}), len(lint_input.rows), tuple(findings), facts
    )


def write_rejects(
    path: Path, skipped: Iterable[Skipped], rows: Iterable[tuple[Origin, RawRow]], refused: Iterable[RefusedRow] = ()
) -> int:
    """Write every skipped row as JSON Lines: id, file, row, line, code, field, reason, fix, and the row as `data`.

    A row that cannot be read has its text instead (`text`). Returns how many. Raises: RunError on a full disk.
    """
    reasons = {skip.origin.id: skip for skip in skipped}
    count = 0
    with atomic_open(path) as file:
        for record in (
            *(_reject(skip, raw.value, raw.text) for origin, raw in rows if (skip := reasons.get(origin.id))),
            *(_reject(row, row.data, row.text) for row in refused),
        ):
            file.write(encoded_row(record) + b"\n")
            count += 1
    return count


def _reject(skip: Skipped | RefusedRow, data: Any, text: str | None) -> dict[str, Any]:
    place = (skip.origin.imported_from or skip.origin) if isinstance(skip, Skipped) else skip
    record = {
        "id": skip.origin.id if isinstance(skip, Skipped) else None,
        "file": place.file,
        "row": place.row,
        "line": place.line,
        "code": skip.code,
        "field": skip.field,
        "reason": str(skip.reason),
        "fix": str(skip.fix),
        "data": data,
    }
    return record if text is None else {**record, "text": text}


def _place(origin: Origin | None) -> tuple[str, str, int]:
    return (origin.dataset, origin.file, origin.row) if origin else ("", "", 0)
