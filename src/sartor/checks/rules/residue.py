"""What conversions leave behind: HTML tags and entities, and text decoded with the wrong encoding."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from sartor.base.reasons import Reason
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput
from sartor.checks.rules import Rule

HTML = re.compile(
    r"</?(?:p|div|span|br|font|td|tr|table|li|ul|ol|h[1-6]|img|strong|em|b|i)(?:\s+[\w-]+\s*=[^<>]{0,200})?\s*/?>"
    r"|<a\s[^<>]{0,300}>|&(?:nbsp|amp|lt|gt|quot|ldquo|rdquo|mdash|hellip|#\d{2,5});",
    re.IGNORECASE,
)
ABOUT_CODE = re.compile(r"```|\bhtml\b|\bcss\b|\bxml\b|标签|网页", re.IGNORECASE)
"""In a row about markup, tags are not residue."""
REPLACED = re.compile("\ufffd|锟斤拷|锟届|烫烫烫|屯屯屯")
"""The replacement character, and what GBK programs show for it and for uninitialized memory."""
AS_LATIN = re.compile(
    r"[\u0080-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]{2,}"
)
"""Runs of the characters that UTF-8 decoded as Latin-1 or Windows-1252 consists of."""
FIRST = "".join(bytes([lead, second]).decode("gb18030") for lead in range(0xE2, 0xF0) for second in range(0x80, 0xC0))
AS_GBK = re.compile(f"[{re.escape(FIRST)}][^\\x00-\\x7f]{{2,}}")
"""How UTF-8 decoded as GBK begins: a lead byte of a three-byte character and its first continuation byte."""


class Residue(Rule):
    """Markup and mojibake."""

    name = "residue"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "html-residue": Reason(
            "The text contains markup: {found}",
            "Strip tags and entities, or the model will write them.",
        ),
        "mojibake": Reason(
            "The text was decoded with the wrong encoding: {found} (should be: {meant}).",
            "Import the file again with the right encoding (--encoding).",
        ),
    }

    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """A warning for each text with either kind: the residue and, where known, what it should be."""
        for row in lint_input.rows:
            about_code = None
            for name, text in row.parts:
                if (pair := mojibake(text)) is not None:
                    yield Finding(
                        "mojibake", "warning", row.origin, name, {"found": pair[0][:20], "meant": pair[1][:20]}
                    )
                if ("<" in text or "&" in text) and (found := HTML.search(text)):
                    about_code = bool(ABOUT_CODE.search(row.text)) if about_code is None else about_code
                    if not about_code:
                        yield Finding("html-residue", "warning", row.origin, name, {"found": found[0][:40]})


def mojibake(text: str) -> tuple[str, str] | None:
    """The first wrongly decoded part and what it should be; None if there is none."""
    if text.isascii():
        return None
    if found := REPLACED.search(text):
        return found[0], "?"
    for found in AS_LATIN.finditer(text):
        for encoding in ("cp1252", "latin-1"):
            meant = _redecode(found[0], encoding)
            if meant is not None:
                return found[0], meant
    for found in AS_GBK.finditer(text):
        meant = _redecode(found[0], "gb18030")
        if meant is not None and len(meant) >= 2:
            return found[0], meant
    return None


def _redecode(text: str, encoding: str) -> str | None:
    """What `text` was if it was UTF-8 decoded as `encoding`; None if it was not."""
    try:
        return text.encode(encoding).decode("utf-8")
    except UnicodeError:
        return None


PLUGIN = Residue()
EXAMPLES = (
    ((("Who?", "Mr.&nbsp;Darcy of <b>Pemberley</b>."),), ("html-residue",)),
    ((("How do I write bold in HTML?", "With <b>…</b>."), ("Is a<b and b>c?", "If a < b.")), ()),
    ((("Qui?", "FranÃ§ois aimÃ© Ã  Paris."),), ("mojibake",)),
    (
        (("谁？", "锟斤拷锟斤拷"), ("谁？", "浣犲ソ"), ("Who?", "He\ufffds late."), ("Who?", "Itâ€™s him.")),
        ("mojibake",) * 4,
    ),
    ((("谁？", "彭伯里的主人，费茨威廉·达西先生。"), ("Où ?", "À Paris, près de l’Élysée — «oui».")), ()),
)
"""(question–answer pairs, the codes found in them)."""
