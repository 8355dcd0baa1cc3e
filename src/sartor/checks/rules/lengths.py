"""How long the rows are in tokens, against `cutoff_len`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput

PERCENTILES = (50, 90, 99)
ROUND_TO = 128


def facts(subject: LintInput) -> dict[str, float]:
    """`tokens_p50 tokens_p90 tokens_p99 tokens_max cutoff_len overlong`."""
    lengths = [*subject.lengths.values(), *subject.overlong.values()]
    if not lengths:
        return {}
    values = {f"tokens_p{p}": float(np.percentile(lengths, p)) for p in PERCENTILES}
    limit = subject.config.prompt.cutoff_len
    return {**values, "tokens_max": max(lengths), "cutoff_len": limit, "overlong": len(subject.overlong)}


def find(subject: LintInput) -> Iterator[Finding]:
    """A warning with the cutoff_len that would hold 99 % and all of the rows, where some do not fit."""
    lengths = [*subject.lengths.values(), *subject.overlong.values()]
    if subject.overlong:
        most, every = (-(-int(size) // ROUND_TO) * ROUND_TO for size in (np.percentile(lengths, 99), max(lengths)))
        params = {
            "count": len(subject.overlong),
            "cutoff": subject.config.prompt.cutoff_len,
            "most": most,
            "every": every,
        }
        yield Finding("rows-overlong", "warning", params=params)


EXAMPLES = (((("Who?", "Darcy."),), ()),)
