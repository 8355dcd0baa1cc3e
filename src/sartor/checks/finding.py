"""What a check found: findings with code, place and fix, and their summary, for the terminal and as JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sartor.base.i18n import Text as Message
from sartor.base.i18n import ntr, tr
from sartor.base.reasons import fix_of, reason_of
from sartor.base.types import Origin, Skipped

if TYPE_CHECKING:
    from rich.console import Group

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")
COLOR = {"error": "red", "warning": "yellow", "note": "cyan"}
MAX_SHOWN_PER_CODE = 3
"""How many findings of a code the terminal shows; JSON has them all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. An error loses the row; a warning is likely to hurt; a note is worth knowing.

    `code` is one of the rule's `reasons` or of `base/reasons.py`; `params` fill its messages.
    """

    code: str
    severity: Severity
    origin: Origin | None = None
    field: str | None = None
    params: Mapping[str, object] = dataclasses.field(default_factory=dict)
    other: Origin | None = None
    """The other row of a pair."""

    @classmethod
    def from_skipped(cls, skipped: Skipped) -> Finding:
        """The finding for a skipped row."""
        return cls(skipped.code, "error", skipped.origin, skipped.field, skipped.params)

    @property
    def message(self) -> Message:
        return reason_of(self.code, self.params)

    @property
    def fix(self) -> Message:
        return fix_of(self.code, self.params)

    def to_json(self) -> dict[str, Any]:
        place = self.origin
        return {
            "code": self.code,
            "severity": self.severity,
            "id": place and place.id,
            "file": place and place.file,
            "row": place and place.row,
            "line": place and place.line,
            "imported_from": place and place.imported_from and dataclasses.asdict(place.imported_from),
            "field": self.field,
            "message": str(self.message),
            "fix": str(self.fix),
            "other": self.other and self.other.id,
        }


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Everything that was found in a dataset."""

    dataset: str
    rows: int
    findings: tuple[Finding, ...]
    facts: Mapping[str, float]
    """Numbers about the whole dataset: token percentiles, rows, optimizer steps."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def summary(self) -> dict[str, int]:
        """Code → number of findings, errors first, then by number."""
        severity = {finding.code: ORDER.index(finding.severity) for finding in self.findings}
        counts = Counter(finding.code for finding in self.findings)
        return dict(sorted(counts.items(), key=lambda item: (severity[item[0]], -item[1], item[0])))

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "rows": self.rows,
            "summary": self.summary,
            "facts": dict(self.facts),
            "findings": [finding.to_json() for finding in self.findings],
        }

    def rich(self) -> Group:
        """For the terminal: by code, how many, the first of them with their places, and the fix."""
        from rich.console import Group
        from rich.text import Text

        head = ntr(
            "{dataset}: {count} row checked", "{dataset}: {count} rows checked", count=self.rows, dataset=self.dataset
        )
        lines = [Text(str(head), style="bold")]
        lines += [Text("  " + line, style="dim") for line in _format_facts(self.facts)]
        for code, count in self.summary.items():
            group = [finding for finding in self.findings if finding.code == code]
            lines.append(Text.assemble((f"{count:>6,} ", "bold"), (code, COLOR[group[0].severity])))
            for finding in group[:MAX_SHOWN_PER_CODE]:
                where = f"{finding.origin}" if finding.origin else self.dataset
                where += f", {finding.field}" if finding.field else ""
                lines.append(Text.assemble("       ", (where, "dim"), f"  {finding.message}"))
            if fix := group[0].fix:
                lines.append(Text.assemble("       → ", str(fix)))
        if not self.findings:
            lines.append(Text(str(tr("Nothing found.")), style="green"))
        return Group(*lines)


def _format_facts(facts: Mapping[str, float]) -> list[str]:
    """The numbers about the whole dataset, as sentences."""
    shown = {name: f"{value:,.0f}" for name, value in facts.items()}
    lines = []
    if "tokens_p50" in facts:
        lines.append(
            tr(
                "tokens per row: 50 % have at most {tokens_p50}, 90 % at most {tokens_p90}, 99 % at most {tokens_p99}, "
                "the longest has {tokens_max}; cutoff_len {cutoff_len}, {overlong} rows are longer",
                **shown,
            )
        )
    if "import_read" in facts:
        lines.append(tr("at import: {import_read} rows read = {import_kept} kept + {import_refused} refused", **shown))
    if "steps" in facts:
        lines.append(
            tr(
                "{training_rows} training rows, {held_out_rows} held out; batch size {batch_size}, "
                "{steps_per_epoch} optimizer steps per epoch, {steps} in total",
                **shown,
            )
        )
    return [str(line) for line in lines]
