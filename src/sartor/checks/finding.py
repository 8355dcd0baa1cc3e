"""What a check found: findings with code, place and mending, and their summary; for terminal and JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sartor.base.i18n import Text as Message
from sartor.base.reasons import fix_of, reason_of
from sartor.base.types import Origin, Skipped

if TYPE_CHECKING:
    from rich.console import Group

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")
COLOUR = {"error": "red", "warning": "yellow", "note": "cyan"}
MAX_SHOWN_PER_CODE = 3
"""How many findings of a code the terminal shows; JSON has them all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. An error loses the row; a warning is likely to hurt; a note is worth knowing.

    The texts of `what` and `mend` stand in the catalogue under `code`.
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
        """A row that is not used."""
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
            "field": self.field,
            "message": str(self.message),
            "fix": str(self.fix),
            "other": self.other and self.other.id,
        }


@dataclass(frozen=True, slots=True)
class CheckResult:
    """All that was found in a dataset."""

    dataset: str
    rows: int
    findings: tuple[Finding, ...]
    facts: Mapping[str, float]
    """Numbers about the whole: token percentiles, optimizer steps, shares of languages."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def summary(self) -> dict[str, int]:
        """How many findings of each code, errors first, then by number."""
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
        """By code: how many, what it means, the first of them with their places."""
        from rich.console import Group
        from rich.text import Text

        lines = [Text(str(reason_of("check-head", {"dataset": self.dataset, "rows": self.rows})), style="bold")]
        lines += [Text("  " + line, style="dim") for line in _format_facts(self.facts)]
        for code, count in self.summary.items():
            group = [finding for finding in self.findings if finding.code == code]
            lines.append(Text.assemble((f"{count:>6,} ", "bold"), (code, COLOUR[group[0].severity])))
            for finding in group[:MAX_SHOWN_PER_CODE]:
                where = f"{finding.origin}" if finding.origin else self.dataset
                where += f", {finding.field}" if finding.field else ""
                lines.append(Text.assemble("       ", (where, "dim"), f"  {finding.message}"))
            if mend := group[0].fix:
                lines.append(Text.assemble("       → ", str(mend)))
        if not self.findings:
            lines.append(Text(str(reason_of("check-clean", {})), style="green"))
        return Group(*lines)


def _format_facts(facts: Mapping[str, float]) -> list[str]:
    """The numbers about the whole, in words."""
    lines = []
    if "tokens_p50" in facts:
        lines.append(str(reason_of("check-lengths", {k: f"{v:,.0f}" for k, v in facts.items()})))
    if "steps" in facts:
        lines.append(str(reason_of("check-steps", {k: f"{v:,.0f}" for k, v in facts.items()})))
    return lines
