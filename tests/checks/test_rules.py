"""Every rule finds what its EXAMPLES say, and no more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sartor.base.reasons import all_reasons, fix_of, reason_of
from sartor.base.types import Demonstration, Message, Origin
from sartor.checks.lint_input import LintInput, row_of
from sartor.checks.rules import RULES, Rule


def examples(rule: Rule) -> Any:
    return sys.modules[type(rule).__module__].EXAMPLES  # type: ignore[attr-defined]


def codes_found(rule: Rule, texts: tuple[tuple[str, str], ...]) -> Iterator[str]:
    rows = [
        row_of(
            Demonstration((Message("user", question), Message("assistant", answer)), Origin("example", "example", n))
        )
        for n, (question, answer) in enumerate(texts, 1)
    ]
    for finding in rule.find(LintInput(rows, control=("<|im_end|>",))):
        yield finding.code


CASES = [(rule.name, number) for rule in RULES.all() for number in range(len(examples(rule)))]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_rule_finds_what_its_example_says(name: str, number: int) -> None:
    rule = RULES.get(name)
    texts, codes = examples(rule)[number]
    assert tuple(codes_found(rule, texts)) == codes


@pytest.mark.parametrize("name", RULES.names())
def test_every_rule_has_examples_and_messages(name: str) -> None:
    rule = RULES.get(name)
    found = {code for _, codes in examples(rule) for code in codes}
    assert found <= set(rule.reasons)
    assert any(not codes for _, codes in examples(rule)), "an example of what is no finding"
    assert all(reason.reason and reason.fix for reason in rule.reasons.values())
    assert set(rule.reasons) <= set(all_reasons())


READ = """
import sys
from sartor.checks.finding import Finding
assert "sartor.checks.rules.repeats" not in sys.modules
print(Finding("duplicate", "warning", params={"other": "a:1"}).message)
"""


def test_a_finding_read_from_elsewhere_has_its_messages() -> None:
    """No rule has run, or even been imported, in this process."""
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True)
    assert "a:1" in done.stdout


def test_an_unknown_code_is_an_error() -> None:
    for message in (reason_of, fix_of):
        with pytest.raises(KeyError):
            message("no-such-code", {})
