"""`sartor check`: finds what is wrong or odd in a dataset; changes nothing and decides nothing about training."""

from sartor.prompt.check.finding import Checked, Finding
from sartor.prompt.check.inspection import check, write_rejects
from sartor.prompt.check.mending import Mended, mend
from sartor.prompt.check.nearness import Near, near_pairs

__all__ = ["Checked", "Finding", "Mended", "Near", "check", "mend", "near_pairs", "write_rejects"]
