"""How much of a decoded text no language writes: what a wrong encoding makes of bytes, without tables of its own."""

from __future__ import annotations

import functools
import re
import unicodedata

STRANGE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x80-\x9f\u2500-\u259f\uff61-\uff9f\ue000-\uf8ff\ufff0-\uffff\U000f0000-\U0010ffff]"
)
"""Controls, lines of boxes, half-width katakana, private characters: legal, and rare in questions and answers."""
MIXED = re.compile(
    r"[A-Za-z](?=[\u0370-\u05ff\u0600-\u0e7f])|[\u0370-\u05ff\u0600-\u0e7f](?=[A-Za-z])"
    r"|[\u0370-\u03ff](?=[\u0400-\u052f])|[\u0400-\u052f](?=[\u0370-\u03ff])"
    r"|[A-Za-z][\u00a1-\u00bf\u00d7\u00f7\u0192\u2020-\u2022\u2030\u20ac\u2122](?=[A-Za-z])|[a-z](?=[\u00c0-\u00d6\u00d8-\u00de])"
)
"""A letter beside one of another script, a sign inside a word, a capital after a small letter."""


def strange_count(text: str) -> int:
    """How many places of a text no language writes."""
    if text.isascii():
        return 0
    return len(STRANGE.findall(text)) + len(MIXED.findall(text)) + sum(map(_is_odd, text))


def strange_frac(text: str) -> float:
    """Strange places as a fraction of the characters that are not ASCII, 0–1 and above."""
    foreign = sum(character >= "\x80" for character in text)
    return strange_count(text) / foreign if foreign else 0.0


@functools.lru_cache(1 << 16)
def _is_odd(character: str) -> bool:
    """Whether a character is unassigned, or an ideograph that neither simplified nor traditional text often has."""
    if character < "\u0370":
        return False
    if unicodedata.category(character) in ("Cn", "Cs"):
        return True
    return ("\u3400" <= character <= "\u9fff" or character > "\uffff") and not is_common_ideograph(character)


@functools.lru_cache(1 << 16)
def is_common_ideograph(character: str) -> bool:
    """Whether an ideograph is at the first level of GB 2312, Big5 or JIS X 0208: those in daily use."""
    for encoding, first, last in (("gb2312", 0xB0, 0xD7), ("big5", 0xA4, 0xC6), ("euc_jp", 0xB0, 0xCF)):
        try:
            code = character.encode(encoding)
        except UnicodeEncodeError:
            continue
        if len(code) == 2 and first <= code[0] <= last:
            return True
    return False
