"""Lines in another encoding than the rest of a file, and encodings that hide in ASCII: ISO-2022, HZ, UTF-7."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from sartor.data.plausible_text import strange_count, strange_frac

MAX_LINES = 2000
"""Different lines that chardet is asked about, at under a millisecond each; every line is tried as UTF-8."""
SUSPECT = (1.8, 0.05)
"""A line is suspect if another encoding is so many times more likely, and chardet's confidence in it at least this."""
GROUP = (1.8, 0.12)
"""The same of all suspect lines of one encoding, read together."""
STRANGE = (2.0, 0.07)
"""The same of lines that are strange as they are read."""
MIN_FOREIGN = 4
"""Bytes beyond ASCII in a line that chardet can say something about."""
STRANGE_FRAC, MAX_STRANGE = 0.25, 0.05
"""A line is strange as it is read, and not strange in another encoding."""
SUPERSETS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
    "ascii": "utf-8",
    "euc-kr": "cp949",
    "iso-8859-1": "cp1252",
}
"""A detected encoding → its superset, which decodes the same characters and the vendor's additions."""
DECLARED = re.compile(rb"(?i)charset|coding")
"""chardet trusts a charset named in the text; in training data that is usually an example of HTML or code."""
ISO_2022 = re.compile(rb"\x1b\$[()*+]?[@-D]")
HZ = re.compile(rb"~\{((?:[\x21-\x77][\x21-\x7e])+)~\}")
UTF_7 = re.compile(rb"\+[A-Za-z0-9+/]{2,}")
MULTIBYTE = (
    "gb18030",
    "gbk",
    "big5",
    "big5hkscs",
    "shift_jis",
    "cp932",
    "euc-jp",
    "euc_jp",
    "cp949",
    "euc-kr",
    "johab",
)


@dataclass(frozen=True, slots=True)
class OtherEncoding:
    """A line, from 1, and the encoding that it is in; line 0: the whole file."""

    line: int
    encoding: str


def superset(encoding: str) -> str:
    """The encoding to read with, for one that was detected."""
    return SUPERSETS.get(encoding, encoding)


def without_declarations(content: bytes) -> bytes:
    """Bytes of the same length in which no charset is named."""
    return DECLARED.sub(lambda found: b"-" * len(found[0]), content)


def other_encoding(lines: Iterable[bytes], encoding: str) -> OtherEncoding | None:
    """The first line that is in another encoding than the given one, which decodes the file."""
    suspects: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    seen: set[bytes] = set()
    for number, line in enumerate(lines, 1):
        if line.isascii():
            continue
        if _is_utf8(line, encoding):
            return OtherEncoding(number, "utf-8")
        if len(seen) < MAX_LINES and line not in seen:
            seen.add(line)
            if sum(byte >= 0x80 for byte in line) < MIN_FOREIGN:
                continue
            least = STRANGE if _is_strange(line, encoding) else SUSPECT
            if other := _more_likely(line, encoding, least):
                suspects[other].append((number, line))
    for other, found in sorted(suspects.items(), key=lambda item: -len(item[1])):
        joined = b"".join(line for _, line in found)
        if _more_likely(joined, encoding, STRANGE if _is_strange(joined, encoding) else GROUP) == other:
            return OtherEncoding(found[0][0], other)
    return None


def _is_utf8(line: bytes, encoding: str) -> bool:
    """Whether a line of a file in another encoding is UTF-8: valid by no chance, and a text."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    foreign = [character for character in text if character >= "\x80"]
    if strange_count(text):
        return False
    odd = strange_count(line.decode(encoding, "ignore")) > 0
    if encoding not in MULTIBYTE:
        return odd or len(foreign) >= 2
    # Two characters of GBK are often two or three of UTF-8 by chance, but those are of any script.
    scripts = {unicodedata.name(character, "").partition(" ")[0] for character in foreign}
    wide = sum(character >= "\u0800" for character in foreign)
    return wide >= (2 if odd else 3) or (len(foreign) >= (4 if odd else 6) and len(scripts) == 1)


def _is_strange(line: bytes, encoding: str) -> bool:
    return strange_frac(line.decode(encoding, "ignore")) >= STRANGE_FRAC


def _more_likely(line: bytes, encoding: str, limits: tuple[float, float]) -> str | None:
    """The encoding that chardet finds so much more likely, if its text is different and plausible."""
    import chardet

    ratio, least = limits
    own = _decoded(line, encoding)
    best: tuple[str, float] | None = None
    for guess in chardet.detect_all(without_declarations(line), ignore_threshold=True):
        name, confidence = superset((guess["encoding"] or "").lower()), float(guess["confidence"] or 0.0)
        text = _decoded(line, name)
        if text is None:
            continue
        if text == own:
            return best[0] if best and best[1] >= least and best[1] >= ratio * confidence else None
        if best is None and strange_frac(text) <= MAX_STRANGE and _are_letters(text):
            best = name, confidence
    return best[0] if best and best[1] >= least else None


def _are_letters(text: str) -> bool:
    """Whether most of the characters beyond ASCII are letters, as they are in words."""
    foreign = [character for character in text if character >= "\x80"]
    return 2 * sum(map(str.isalpha, foreign)) >= len(foreign)


def _decoded(line: bytes, encoding: str) -> str | None:
    try:
        return line.decode(encoding)
    except (UnicodeError, LookupError):
        return None


def escaped_encoding(lines: Callable[[], Iterator[bytes]]) -> OtherEncoding | None:
    """The encoding whose escapes are in a file of valid UTF-8; with its line, if other lines are not in it."""
    for find in (_iso_2022, _hz, _utf_7):
        if found := find(lines):
            return found
    return None


def _iso_2022(lines: Callable[[], Iterator[bytes]]) -> OtherEncoding | None:
    """ISO-2022-JP, -KR or -CN by its escape sequences."""
    import chardet

    sample = b"".join(islice((line for line in lines() if b"\x1b" in line), MAX_LINES))
    if not ISO_2022.search(sample):
        return None
    name = str(chardet.detect(sample)["encoding"] or "").lower()
    if not name.startswith("iso-2022") and not name.startswith("iso2022"):
        return None
    first = next((number for number, line in enumerate(lines(), 1) if ISO_2022.search(line)), 1)
    return OtherEncoding(0 if all(line.isascii() for line in lines()) else first, name)


def _hz(lines: Callable[[], Iterator[bytes]]) -> OtherEncoding | None:
    """HZ: `~{` … `~}` around pairs of bytes that are Chinese characters."""
    first, whole, characters = 0, True, 0
    for number, line in enumerate(lines(), 1):
        if b"~{" not in line:
            whole = whole and line.isascii() and (b"~" not in line or _decoded(line, "hz") is not None)
            continue
        found = [_decoded(match[0], "hz") for match in HZ.finditer(line)]
        if found and all(text and not strange_count(text) for text in found):
            first, characters = first or number, characters + sum(len(text or "") for text in found)
            whole = whole and _decoded(line, "hz") is not None
        else:
            whole = False
    return OtherEncoding(0 if whole else first, "hz") if characters >= 2 else None


def _utf_7(lines: Callable[[], Iterator[bytes]]) -> OtherEncoding | None:
    """UTF-7: `+` and base64 that decodes to a text."""
    first, whole, letters = 0, True, 0
    for number, line in enumerate(lines(), 1):
        if not UTF_7.search(line):
            whole = whole and line.isascii() and (b"+" not in line or _decoded(line, "utf-7") is not None)
            continue
        text = _decoded(line, "utf-7")
        foreign = "" if text is None else "".join(character for character in text if character >= "\x80")
        if text is None or not line.isascii() or not foreign or strange_count(text):
            whole = False
            continue
        first, letters = first or number, letters + sum(map(str.isalpha, foreign))
    return OtherEncoding(0 if whole else first, "utf-7") if letters >= 2 else None
