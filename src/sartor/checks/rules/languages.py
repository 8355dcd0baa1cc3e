"""Rows in another writing than most: often strays of an import; a mix on purpose is only told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput

SCRIPTS = {
    "Japanese": re.compile(r"[\u3040-\u30ff]"),
    "Korean": re.compile(r"[\uac00-\ud7af]"),
    "Chinese": re.compile(r"[\u4e00-\u9fff]"),
    "Cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "Arabic": re.compile(r"[\u0600-\u06ff]"),
    "Latin": re.compile(r"[A-Za-z\u00c0-\u024f]"),
}
STRAY_FRAC = 0.05
"""A writing that fewer rows than this use is likely a stray; its rows are named."""
SHARE = {"Japanese": 0.1, "Korean": 0.2, "Chinese": 0.2, "Cyrillic": 0.3, "Arabic": 0.3}
"""The share of letters from which a row counts as that writing (kana are few in Japanese, Latin names many in all)."""
SAMPLE = 400


def find(subject: LintInput) -> Iterator[Finding]:
    """One note on the mix, and a note on each row of a rare writing."""
    scripts = [script_of(row.text) for row in subject.rows]
    counts = Counter(script for script in scripts if script)
    total = sum(counts.values())
    if len(counts) < 2:
        return
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in counts.most_common())
    yield Finding("language-mix", "note", params={"shares": shares})
    for row, script in zip(subject.rows, scripts):
        if script and counts[script] / total < STRAY_FRAC:
            params = {"script": script, "main": counts.most_common(1)[0][0]}
            yield Finding("language-stray", "note", row.origin, None, params)


def script_of(text: str) -> str:
    """The writing of a text's beginning, or nothing where it has no letters."""
    text = text[:SAMPLE]
    counts = {name: len(pattern.findall(text)) for name, pattern in SCRIPTS.items()}
    letters = sum(counts.values())
    if not letters:
        return ""
    return next((name for name, share in SHARE.items() if counts[name] > share * letters), "Latin")


MOSTLY = tuple((f"Question {n}?", "An answer in English.") for n in range(30))
EXAMPLES = (
    ((("谁是达西？", "彭伯里的主人。"), ("Who is Darcy?", "The owner of Pemberley.")), ("language-mix",)),
    ((*MOSTLY, ("谁是达西？", "彭伯里的主人。")), ("language-mix", "language-stray")),
    ((("谁是 Darcy？", "彭伯里的主人。"), ("他叫什么？", "Fitzwilliam，即费茨威廉。")), ()),
)
