"""Rules: one file per thing that `sartor check` looks for.

To add a rule, put a file with a `Rule` subclass and `PLUGIN = MyRule()` into this folder, or register it from your own
package:

    [project.entry-points."sartor.rules"]
    mine = "my_package.my_rule:PLUGIN"
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from sartor.base.reasons import Reason, add_reasons
from sartor.base.registry import Registry
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput


class Rule(ABC):
    """One check of a whole dataset. It reads, it never changes a row."""

    name: ClassVar[str]
    reasons: ClassVar[Mapping[str, Reason]]
    """Code → messages, for every code that `find` uses."""

    @abstractmethod
    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """What is wrong or unusual, each with one of the codes in `reasons`."""

    def facts(self, lint_input: LintInput) -> dict[str, float]:
        """Numbers about the dataset as a whole, for the report's `facts`."""
        return {}


RULES: Registry[Rule] = Registry("rule", "sartor.checks.rules", Rule)
"""Every rule by its name; nothing is imported before it is used."""
add_reasons(lambda: [rule.reasons for rule in RULES.all()])
