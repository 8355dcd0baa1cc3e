"""Plain words: names and phrases that were replaced do not come back, in code, messages or docs."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sartor"
NAMES = frozenset(
    [
        "Lost",
        "Facts",
        "Refused",
        "Imported",
        "Raw",
        "unjoinable",
        "drift",
        "recompute",
        "KIND",
        "newest",
        "sweep",
        "gathered",
        "told",
        "contest",
        "Judged",
        "Known",
        "Watched",
        "Unjoinable",
        "Twice",
        "Unusable",
        "Understood",
        "Told",
        "Shown",
        "Drawing",
        "NoRoom",
        "Which",
        "Contestant",
        "Rivals",
        "Divided",
        "Pace",
        "CapReached",
        "Gate",
        "RoomyLayer",
        "TokenChosen",
        "Moments",
        "foreign_keys",
        "jsontext",
        "micro_rows",
        "row_logps",
        "head_loss",
        "standing_bytes",
        "from_first",
        "swayed",
        "retell",
        "framed",
        "desk",
        "shelf",
    ]
)
"""Identifiers that have other names now (`docs/design.md` has the words)."""
PHRASES = re.compile(
    r"""\b(
    mend(s|ed|ing)?\b | stands?\ twice | is\ none\ of\ the | is\ not\ there\b | this\ is\ no\b
    | is\ no\ (json|object|number) | cannot\ be\ had | does\ not\ give | anew\b | another\ data\b | by\ heart
    | learn\ more\ gently | take\ home | nothing\ to\ be\ compared | told\ by\ another
    | of\ everything\ random | which\ weights\ move | rows?\ to\ learn\b | learned\ rows?\b
    | what\ is\ learned | (is|are)\ learned\b
    | colour | optimis(e|a) | tokenis | memoris | quantis | behaviour | learnt\b | whilst\b | grey\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""Wording that a native engineer would not write, and British spelling."""


def python_files() -> list[Path]:
    return sorted([*SOURCE.rglob("*.py"), *(ROOT / "tools").glob("*.py"), *(ROOT / "bench").glob("*.py")])


@pytest.mark.parametrize("file", python_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_code_uses_the_fields_words(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    found: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and token.string in NAMES:
            found.append(f"line {token.start[0]}: {token.string}")
        if token.type == tokenize.COMMENT and (phrase := PHRASES.search(token.string)):
            found.append(f"line {token.start[0]}: {phrase[0]}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (phrase := PHRASES.search(node.value)):
            found.append(f"line {node.lineno}: {phrase[0]}")
    assert found == []


def test_messages_are_plain_english() -> None:
    with (SOURCE / "locale" / "zh" / "LC_MESSAGES" / "sartor.po").open("rb") as file:
        catalog = read_po(file)
    ids = [one for m in catalog if m.id for one in ((m.id,) if isinstance(m.id, str) else m.id)]
    assert [one for one in ids if PHRASES.search(one)] == []


@pytest.mark.parametrize(
    "file",
    [*sorted((ROOT / "docs").rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "LOG.md"))],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_documents_are_plain_english(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert [f"{text[: m.start()].count(chr(10)) + 1}: {m[0]}" for m in PHRASES.finditer(text)] == []
