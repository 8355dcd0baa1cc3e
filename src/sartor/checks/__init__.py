"""`sartor check`: finds what is wrong or odd in a dataset; changes nothing and decides nothing about training."""

from sartor.checks.autofix import Mended, mend
from sartor.checks.finding import Checked, Finding
from sartor.checks.near_duplicates import Near, near_pairs
from sartor.checks.runner import check, write_rejects

__all__ = ["Checked", "Finding", "Mended", "Near", "check", "mend", "near_pairs", "write_rejects"]
