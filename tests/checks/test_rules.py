"""Every rule finds what its EXAMPLES say, and no more."""

from __future__ import annotations

from types import ModuleType

import pytest

from sartor.base.reasons import REASONS
from sartor.base.registry import plugins
from sartor.checks.lint_input import codes_found

RULES = {rule.__name__.rpartition(".")[2]: rule for rule in plugins("sartor.checks.rules")}
CASES = [(name, number) for name, rule in RULES.items() for number in range(len(rule.EXAMPLES))]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_rule_finds_what_its_example_says(name: str, number: int) -> None:
    rule: ModuleType = RULES[name]
    texts, codes = rule.EXAMPLES[number]
    assert tuple(codes_found(rule, texts)) == codes


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_its_proof_and_its_texts(name: str) -> None:
    found = {code for _, codes in RULES[name].EXAMPLES for code in codes}
    assert found <= set(REASONS)
    assert any(not codes for _, codes in RULES[name].EXAMPLES), "an example of what is no finding"
