"""How long the rows are in tokens, compared with `cutoff_len`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from sartor.base.reasons import Reason
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput
from sartor.checks.rules import Rule

PERCENTILES = (50, 90, 99)
ROUND_TO = 128
"""Suggested values of cutoff_len are multiples of this."""


class Lengths(Rule):
    """Row lengths against `cutoff_len`."""

    name = "lengths"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "rows-overlong": Reason(
            "{count} rows are longer than cutoff_len {cutoff}.",
            "cutoff_len={most} fits 99 % of all rows, cutoff_len={every} all of them.",
        ),
    }

    def facts(self, lint_input: LintInput) -> dict[str, float]:
        """`tokens_p50 tokens_p90 tokens_p99 tokens_max cutoff_len overlong`."""
        lengths = [*lint_input.lengths.values(), *lint_input.overlong.values()]
        if not lengths:
            return {}
        values = {f"tokens_p{p}": float(np.percentile(lengths, p)) for p in PERCENTILES}
        limit = lint_input.config.prompt.cutoff_len
        return {**values, "tokens_max": max(lengths), "cutoff_len": limit, "overlong": len(lint_input.overlong)}

    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """If some rows do not fit: a warning with the cutoff_len for 99 % and for all of the rows."""
        lengths = [*lint_input.lengths.values(), *lint_input.overlong.values()]
        if lint_input.overlong:
            most, every = (-(-int(size) // ROUND_TO) * ROUND_TO for size in (np.percentile(lengths, 99), max(lengths)))
            params = {
                "count": len(lint_input.overlong),
                "cutoff": lint_input.config.prompt.cutoff_len,
                "most": most,
                "every": every,
            }
            yield Finding("rows-overlong", "warning", params=params)


PLUGIN = Lengths()
EXAMPLES = (((("Who?", "Darcy."),), ()),)
"""(question–answer pairs, the codes found in them)."""
