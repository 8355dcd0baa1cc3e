"""Rows in a different script than most: often left over from an import; an intended mix is only noted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import ClassVar

from sartor.base.reasons import Reason
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput
from sartor.checks.rules import Rule

SCRIPTS = {
    "Japanese": re.compile(r"[\u3040-\u30ff]"),
    "Korean": re.compile(r"[\uac00-\ud7af]"),
    "Chinese": re.compile(r"[\u4e00-\u9fff]"),
    "Cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "Arabic": re.compile(r"[\u0600-\u06ff]"),
    "Latin": re.compile(r"[A-Za-z\u00c0-\u024f]"),
}
STRAY_FRAC = 0.05
"""The rows in a script that a smaller fraction of the data uses are reported one by one."""
SHARE = {"Japanese": 0.1, "Korean": 0.2, "Chinese": 0.2, "Cyrillic": 0.3, "Arabic": 0.3}
"""Fraction of letters above which a row counts as that script (Japanese has few kana, every text has Latin names)."""
SAMPLE = 400
"""Characters of a text that are looked at."""


class Languages(Rule):
    """Rows in another script than most."""

    name = "languages"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "language-mix": Reason(
            "The rows are in several scripts: {shares}.",
            "If that is not intended, look at the rows in the rare ones.",
        ),
        "language-stray": Reason(
            "The row is in {script} script; most of the data is in {main}.",
            "Delete or translate it if it does not belong here.",
        ),
    }

    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """One note on the mix, and one on each row in a rare script."""
        scripts = [script_of(row.text) for row in lint_input.rows]
        counts = Counter(script for script in scripts if script)
        total = sum(counts.values())
        if len(counts) < 2:
            return
        shares = ", ".join(f"{name} {count / total:.1%}" for name, count in counts.most_common())
        yield Finding("language-mix", "note", params={"shares": shares})
        for row, script in zip(lint_input.rows, scripts):
            if script and counts[script] / total < STRAY_FRAC:
                params = {"script": script, "main": counts.most_common(1)[0][0]}
                yield Finding("language-stray", "note", row.origin, None, params)


def script_of(text: str) -> str:
    """The script of the beginning of a text; empty if it has no letters."""
    text = text[:SAMPLE]
    counts = {name: len(pattern.findall(text)) for name, pattern in SCRIPTS.items()}
    letters = sum(counts.values())
    if not letters:
        return ""
    return next((name for name, share in SHARE.items() if counts[name] > share * letters), "Latin")


MOSTLY = tuple((f"Question {n}?", "An answer in English.") for n in range(30))
PLUGIN = Languages()
EXAMPLES = (
    ((("谁是达西？", "彭伯里的主人。"), ("Who is Darcy?", "The owner of Pemberley.")), ("language-mix",)),
    ((*MOSTLY, ("谁是达西？", "彭伯里的主人。")), ("language-mix", "language-stray")),
    ((("谁是 Darcy？", "彭伯里的主人。"), ("他叫什么？", "Fitzwilliam，即费茨威廉。")), ()),
)
"""(question–answer pairs, the codes found in them)."""
