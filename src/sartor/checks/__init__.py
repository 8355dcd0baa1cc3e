"""The dataset linter behind `sartor check`, and the autofixes for what has one safe fix."""

from sartor.checks.autofix import FixResult, apply_fixes
from sartor.checks.finding import CheckResult, Finding
from sartor.checks.near_duplicates import NearDuplicate, near_pairs
from sartor.checks.runner import check, write_rejects

__all__ = [
    "CheckResult",
    "Finding",
    "FixResult",
    "NearDuplicate",
    "check",
    "apply_fixes",
    "near_pairs",
    "write_rejects",
]
