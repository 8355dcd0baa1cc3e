"""Personal data that a model could memorize: e-mail addresses, phone and identity numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from sartor.base.reasons import Reason
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput
from sartor.checks.rules import Rule

EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_])?@"
    r"(?:(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24}|中国|公司|网络|中文网|在线)"
    r"|\[?\d{1,3}(?:\.\d{1,3}){3}\]?|localhost(?![\w.-]))"
)
"""An address at any host: of any country, by number, on the machine itself."""
MOBILE = re.compile(r"(?<![\d.-])(?:\+?86[- ]?)?1[3-9]\d(?:[- ]?\d{4}){2}(?![\d.])")
INTERNATIONAL = re.compile(
    r"(?<![\w.])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)|\d{1,4})(?:[ .-]?\d{2,4}){2,4}|\(\d{3}\) ?\d{3}-\d{4})(?!\d)"
)
IDENTITY = re.compile(r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dXx])")
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
SOCIAL = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
DIGITS = re.compile(r"\d{3}")


class PersonalData(Rule):
    """Personal data, shown only in part."""

    name = "personal"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "personal-email": Reason(
            "The text contains an e-mail address: {found}",
            "Replace it with a placeholder if it belongs to a person.",
        ),
        "personal-phone": Reason(
            "The text contains a phone number: {found}",
            "Replace it with a placeholder if it belongs to a person.",
        ),
        "personal-id": Reason(
            "The text contains an identity number: {found}",
            "Replace it with a placeholder.",
        ),
    }

    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """A warning for each text and kind; only a part of what was found is shown."""
        for row in lint_input.rows:
            for name, text in row.parts:
                for code, found in _kinds(text):
                    yield Finding(code, "warning", row.origin, name, {"found": _redacted(found)})


def _kinds(text: str) -> Iterator[tuple[str, str]]:
    if "@" in text:
        mail = _first(EMAIL, text)
        if mail:
            yield "personal-email", mail
    if not DIGITS.search(text):
        return
    identity = next((m[0] for m in IDENTITY.finditer(text) if _has_check_digit(m[0])), None) or _first(SOCIAL, text)
    if identity:
        yield "personal-id", identity
    telephone = _first(MOBILE, text) or _first(INTERNATIONAL, text)
    if telephone:
        yield "personal-phone", telephone


def masked(text: str) -> tuple[str, int]:
    """The text with a placeholder for each address and number, and how many there were."""
    if "@" not in text and not DIGITS.search(text):
        return text, 0
    count = 0

    def placeholder(word: str) -> Callable[[re.Match[str]], str]:
        def replaced(found: re.Match[str]) -> str:
            nonlocal count
            if word == "[ID]" and not SOCIAL.fullmatch(found[0]) and not _has_check_digit(found[0]):
                return found[0]
            count += 1
            return word

        return replaced

    patterns = ((EMAIL, "[EMAIL]"), (IDENTITY, "[ID]"), (SOCIAL, "[ID]"), (MOBILE, "[PHONE]"))
    for pattern, word in (*patterns, (INTERNATIONAL, "[PHONE]")):
        text = pattern.sub(placeholder(word), text)
    return text, count


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[0] if found else None


def _has_check_digit(number: str) -> bool:
    """Whether the last character of a Chinese identity number is its check digit (GB 11643-1999)."""
    total = sum(int(digit) * weight for digit, weight in zip(number, WEIGHTS))
    return "10X98765432"[total % 11] == number[-1].upper()


def _redacted(found: str) -> str:
    """Enough to find it again, not enough to leak it."""
    return f"{found[:3]}…{found[-2:]}"


PLUGIN = PersonalData()
EXAMPLES = (
    ((("Mail?", "Write to fitz.darcy@pemberley.co.uk today."),), ("personal-email",)),
    (
        (("电话？", "请拨 13800138000。"), ("Call?", "+44 20 7946 0958"), ("US?", "(212) 555-0199")),
        ("personal-phone",) * 3,
    ),
    ((("身份证？", "11010519491231002X"), ("SSN?", "078-05-1120")), ("personal-id",) * 2),
    (
        (("Mail?", "user@example.com"), ("Mail?", "发到 li.wei@公司.cn"), ("?", "root@10.0.0.7")),
        ("personal-email",) * 3,
    ),
    ((("Decorator?", "@property and a @ b"), ("π?", "3.14159265358979323846"), ("身份证？", "110105194912310021")), ()),
    ((("Sum?", "12345678901234567890 and 1.3800138000"), ("Date?", "2024-11-05 10:30")), ()),
)
"""(question–answer pairs, the codes found in them)."""
