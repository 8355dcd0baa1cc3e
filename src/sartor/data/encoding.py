"""Bytes to text: the encoding is found, proved by decoding the whole file strictly, and never guessed over errors."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from sartor.base.errors import DataError

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "ascii": "utf-8", "euc-kr": "cp949", "iso-8859-1": "cp1252"}
"""A detected encoding → its superset, which decodes the same characters and the vendor's additions."""
SURE, CLEAR, TIMES = 0.5, 0.2, 3.0
"""A detected encoding is taken at chardet's confidence `SURE`; or at `CLEAR`, as small files give, when it is so many
`TIMES` that of the next one that decodes to another text. Else we ask instead of guessing."""
DECLARED = re.compile(rb"(?i)charset|coding")
"""chardet believes a charset that a text names; in data such a name is most often an example of HTML or of code."""
DAMAGED_UTF8 = 0.8
"""A file of which so large a part of the non-ASCII bytes is valid UTF-8 is damaged UTF-8, not another encoding."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A file's text, the encoding that decodes all of it, and how that was found."""

    text: str
    encoding: str
    how: str


def read_text(path: Path, encoding: str | None = None) -> Decoded:
    """A text file in the encoding given, or the one found. Raises: DataError as `decode` does."""
    return decode(path.read_bytes(), str(path), encoding)


def decode(content: bytes, where: str, encoding: str | None = None) -> Decoded:
    """Byte order mark, then strict UTF-8, then detection; each proved by decoding everything strictly.

    Raises: DataError naming the offset of the first byte that does not fit, or asking for the encoding.
    """
    if encoding is not None:
        return _as_given(content, where, encoding)
    for mark, name in BOMS:
        if content.startswith(mark):
            return Decoded(_strict(content, name, where), name, "byte order mark")
    try:
        return Decoded(content.decode("utf-8"), "utf-8", "strict UTF-8")
    except UnicodeDecodeError as error:
        first_bad = error.start
    if _share_of_utf8(content) >= DAMAGED_UTF8:
        raise DataError(
            f"The file is UTF-8, but byte {first_bad} (0x{content[first_bad]:02x}) is not.", where,
            "Mend that place, or name another encoding if it is none of UTF-8.",
        )  # fmt: skip
    return _detected(content, where)


def _as_given(content: bytes, where: str, encoding: str) -> Decoded:
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise DataError(f"There is no encoding {encoding!r}.", where, "Try utf-8, gb18030, big5 or cp1252.") from None
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"  # a byte order mark is no text
    text = _strict(content, encoding, where)
    return Decoded(text.removeprefix("\ufeff"), encoding, "as given")


def _strict(content: bytes, encoding: str, where: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise DataError(
            f"Byte {error.start} (0x{byte:02x}) is no {encoding} text.", where,
            "Leave the encoding out to have it found, or name another one.",
        ) from None  # fmt: skip


def _detected(content: bytes, where: str) -> Decoded:
    import chardet

    best: Decoded | None = None
    confidence, rival, tried = 0.0, 0.0, []
    blinded = DECLARED.sub(lambda found: b"-" * len(found[0]), content)
    for guess in chardet.detect_all(blinded, ignore_threshold=True):  # the most likely first
        name = (guess["encoding"] or "").lower()
        name = WIDER.get(name, name)
        try:
            text = content.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
        tried.append(name)
        sure = float(guess["confidence"] or 0.0)
        if best is None:
            best, confidence = Decoded(text, name, f"detected, {sure:.0%} sure, proved strictly"), sure
        elif text != best.text:
            rival = sure
            break
    if best and (confidence >= SURE or (confidence >= CLEAR and confidence >= TIMES * rival)):
        return best
    raise DataError(
        "The encoding of the file cannot be found with certainty.", where,
        f"Name it: --encoding gb18030 (Chinese), big5, shift_jis, cp1252 … (likely: {', '.join(tried) or 'none'}).",
    )  # fmt: skip


def _share_of_utf8(content: bytes) -> float:
    """The part of the non-ASCII bytes that stands in valid UTF-8 sequences, 0–1."""
    text = content.decode("utf-8", errors="surrogateescape")
    bad = sum(1 for character in text if "\udc80" <= character <= "\udcff")
    high = sum(1 for byte in content if byte >= 0x80)
    return 1 - bad / high if high else 1.0
