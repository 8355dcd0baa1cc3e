"""Every setting does something: it is read where it matters, or a table says why not."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import sartor
from sartor.base.config import RunConfig
from sartor.base.llamafactory_keys import SETTINGS_WITHOUT_EFFECT, UNSUPPORTED_KEYS
from sartor.base.settings import SECTIONS

ROOT = Path(sartor.__file__).parent
SETTINGS = {key: section for section, fields in SECTIONS.items() for key in fields.model_fields}
ONE_VALUE = {"num_beams", "metric_for_best_model"}
"""Settings of which only one value is accepted: there is nothing to read."""
NOT_YET: set[str] = set()
"""Settings whose reader is being written."""


@cache
def reads() -> dict[str, set[str]]:
    """Section → the settings read from it: `config.train.seed`, `train.seed`, `settings.seed`."""
    found: dict[str, set[str]] = {section: set() for section in SECTIONS}
    for file in ROOT.rglob("*.py"):
        if "web" in file.parts or file.name in ("settings.py", "config.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            for section in SECTIONS:
                if name in (section, "settings", "loaded"):
                    found[section].add(node.attr)
    return found


@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_every_setting_is_read_or_listed(setting: str) -> None:
    read = setting in reads()[SETTINGS[setting]]
    excused = setting in {*SETTINGS_WITHOUT_EFFECT, *UNSUPPORTED_KEYS, *ONE_VALUE}
    assert setting in NOT_YET or read != excused, "read nowhere" if not read else "listed as unused, but read"


def test_a_setting_without_effect_is_reported() -> None:
    assert "do_eval" in RunConfig.from_dict({"do_eval": True}).ignored_keys
