"""docs/web.md shows pictures that are there, names options and tests that exist; no picture is left over."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from sartor.cli import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "web.md").read_text(encoding="utf-8")


def test_every_picture_is_there_and_none_is_left_over() -> None:
    shown = set(re.findall(r"\]\(images/([^)]+)\)", TEXT))
    assert shown == {file.name for file in (ROOT / "docs" / "images").glob("web-*.png")}
    assert len(shown) > 7


def test_links_and_tests_that_are_named_exist() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings
    for file in re.findall(r"\]\(([a-z]+\.md)\)", TEXT):
        assert (ROOT / "docs" / file).is_file()
    for file in re.findall(r"`((?:tests|bench)/[\w/.]+\.py)`", TEXT):
        assert (ROOT / file).is_file()


def test_options_that_are_named_exist() -> None:
    told = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, ["web", "--help"], env={"COLUMNS": "200"}).output)
    for option in set(re.findall(r"`?(--[a-z][a-z-]+)", TEXT)):
        assert option in told, option
